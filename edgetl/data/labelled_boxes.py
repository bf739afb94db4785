"""Annotated images to evaluate a plain detecting graph on, read from COCO, YOLO or VOC files given by one path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.box_index import BoxedImage, BoxFault
from edgetl.artifacts.data_index import BrokenFile
from edgetl.config import DataSettings
from edgetl.data.boxes.box_readers import read_annotations
from edgetl.data.boxes.yolo import YAML_SUFFIXES, read_yaml
from edgetl.data.index_boxes import cleaned, unambiguous
from edgetl.data.listing import listed
from edgetl.data.paths import leaves, must_exist
from edgetl.errors import EdgetlError, did_you_mean

_VOC_LIST = "ImageSets/Main/val.txt"


@dataclass(frozen=True)
class LabelledBoxes:
    """Usable images with paths relative to ``root``, and the faults of the rest."""

    images: tuple[BoxedImage, ...]
    root: Path
    faults: tuple[BoxFault, ...]
    broken: tuple[BrokenFile, ...]
    notes: tuple[str, ...]


def is_annotated(source: Path) -> bool:
    """Whether a path is that of annotated boxes, by its name and by its content; see `labelled_boxes`."""
    if source.is_dir():
        return (source / "Annotations").is_dir() or _is_yolo_folder(source)
    return source.suffix.lower() in {".json", *YAML_SUFFIXES} or _is_voc_list(source)


def labelled_boxes(source: Path, labels: Sequence[str]) -> LabelledBoxes:
    """The images of a data set with their boxes, to evaluate a graph on.

    Args:
        source: a .json file is COCO's; its images are below its folder, or if that is called annotations, beside that.
            A .yaml file is YOLO's, and a folder with ``images`` and ``labels`` has one: its key ``val`` counts. A list
            in ``ImageSets/Main`` is VOC's, and a folder with ``Annotations`` has one, ``val.txt``.
        labels: all that the graph knows.

    Raises:
        EdgetlError: it is none of these, files are missing or damaged, a box has another label, or no image is left.
    """
    data, root = _meant(source)
    listing = read_annotations(data, root)
    there = {mark.label for images in listing.parts.values() for image in images for mark in image.marks}
    if other := sorted(there - set(labels)):
        free, known = sorted(set(labels) - there), listed(sorted(labels), limit=10)
        named = listed((f"{label!r}{did_you_mean(label, free)}" for label in other), limit=10)
        raise EdgetlError(
            f"{source} has boxes of {named}, which the graph does not know; it knows {known}; "
            "rename these labels or take their boxes out, or export the graph with the names that the data has"
        )
    parts, broken, faults = cleaned(root, listing, labels)
    parts, notes = unambiguous(parts)
    found = LabelledBoxes(parts["train"], root, (*listing.faults, *faults), broken, notes)
    if not found.images:
        wrong = [f"{one.where}: {one.detail}" for one in found.faults] + [f"{b.path}: {b.reason}" for b in broken]
        first = f"; the first of {len(wrong)} faults: {wrong[0]}" if wrong else ""
        raise EdgetlError(f"{source} has no usable image{first}; expected images, below {root}, with their boxes")
    return found


def _meant(source: Path) -> tuple[DataSettings, Path]:
    """The settings of the data that a path means, as a study would give them, and the data root."""
    if not source.exists():
        raise EdgetlError(f"{source} does not exist; give annotations with boxes (a COCO .json file, say)")
    suffix = source.suffix.lower()
    if source.is_file() and suffix == ".json":
        file = source.absolute()
        # COCO's usual layout: annotations/ beside the folders of images.
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        return _data("coco", root, file.relative_to(root).as_posix())
    if source.is_file() and suffix in YAML_SUFFIXES:
        return _yolo(source)
    if _is_voc_list(source):
        return _voc(source)
    if (source / "Annotations").is_dir():
        must_exist(source / _VOC_LIST, f"the list of {source}'s validation images", "file")
        return _voc(source / _VOC_LIST)
    if _is_yolo_folder(source):
        found = sorted(path for path in source.iterdir() if path.suffix.lower() in YAML_SUFFIXES)
        if len(found) == 1:
            return _yolo(found[0])
        there = listed(path.name for path in found)
        raise EdgetlError(
            f"{source} looks like YOLO's and has {len(found)} .yaml files ({there}), expected one with names and val; "
            "give the path of that"
        )
    raise EdgetlError(
        f"{source} is nothing with boxes that edgetl knows, and a detector is evaluated on boxes; give a COCO "
        ".json file, YOLO's data.yaml, or a VOC folder with Annotations"
    )


def _data(format_name: str, root: Path, part: str, names: str | None = None) -> tuple[DataSettings, Path]:
    return DataSettings.model_validate({"format": format_name, "root": str(root), "train": part, "names": names}), root


def _is_voc_list(source: Path) -> bool:
    return source.suffix == ".txt" and source.parts[-3:-1] == ("ImageSets", "Main")


def _voc(names: Path) -> tuple[DataSettings, Path]:
    root = names.parents[2]
    return _data("voc", root, names.relative_to(root).as_posix())


def _is_yolo_folder(source: Path) -> bool:
    return (source / "images").is_dir() and (source / "labels").is_dir()


def _yolo(file: Path) -> tuple[DataSettings, Path]:
    content = read_yaml(file)
    path, part = content.get("path", "."), content.get("val")
    if not isinstance(path, str) or not isinstance(part, str):
        raise EdgetlError(
            f"{file} has path {path!r} and val {part!r}, expected under val one folder with the images to evaluate on, "
            "or one file that lists them, below path"
        )
    root = file.parent / path
    must_exist(root, f"path of {file}", "folder")
    if leaves(part):
        raise EdgetlError(f"{file} has val {part!r}, which leaves {root}; give a path below it")
    must_exist(root / part, f"val of {file}", "file" if Path(part).suffix == ".txt" else "folder")
    # The names come from the file itself, wherever the root is.
    return _data("yolo", root, part, str(file.absolute()))
