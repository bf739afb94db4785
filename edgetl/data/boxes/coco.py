"""COCO JSON: one file for a split, with lists of images, annotations and categories.

Format: Lin et al. 2014, Microsoft COCO, and cocodataset.org, "Data format". ``bbox`` is left, top, width and height in
pixels, from the image's left top corner; edges, not centres, so that nothing has to be added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgetl.artifacts.box_index import BoxFault
from edgetl.config import DataSettings
from edgetl.data.boxes.box_listing import (
    AnnotatedImage,
    BoxListing,
    RawBox,
    UnreadableError,
    is_text,
    read_bounded,
    shown,
)
from edgetl.data.paths import files_below, images_folder, is_file, leaves, must_exist, named_parts, utf8
from edgetl.errors import EdgetlError

_MOST_BYTES = 1 << 30
"""Twice the size of COCO's own largest file."""


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("expected a name without control characters")
    return value


Text = Annotated[str, AfterValidator(_text)]
Id = Annotated[int, Field(ge=-(2**63), lt=2**63)] | Text


class _Part(BaseModel):
    """A part of a COCO file; keys that are not declared, such as segmentations, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class _Image(_Part):
    id: Id
    file_name: Text
    width: float | None = None
    height: float | None = None


class _Annotation(_Part):
    id: Id | None = None
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    iscrowd: int | bool = 0


class _Category(_Part):
    id: Id
    name: Text


class _Coco(_Part):
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
    categories: tuple[_Category, ...]


def coco(data: DataSettings, root: Path) -> BoxListing:
    """The images and boxes of COCO files: ``data.train``, and where given ``val`` and ``test``, below the root.

    Images are found below ``data.images``, or the root: by their ``file_name``, or where nothing is there, by a path
    that ends with it, so that one folder serves annotations of several splits.
    """
    must_exist(root, "data.root", "folder")
    finder = _Finder(root, images_folder(data, root, "."))
    parts: dict[str, tuple[AnnotatedImage, ...]] = {}
    labels: dict[str, None] = {}
    faults: list[BoxFault] = []
    for split, part in named_parts(data).items():
        must_exist(root / part, f"data.{split}", "file")
        content = read_coco(root / part)
        labels.update((category.name, None) for category in content.categories)
        images = []
        marks = _marks(content, part, {category.id: category.name for category in content.categories}, faults)
        for image in _single(content.images, part, faults):
            where = f"{part}: image {image.id!r}"
            # Some tools write 0 x 0 where they do not know the size.
            size = (image.width, image.height) if image.width and image.height else None
            try:
                images.append(AnnotatedImage(finder(image.file_name), where, tuple(marks[image.id]), size))
            except UnreadableError as error:
                faults.append(BoxFault(where=where, kind="missing image", detail=error.reason, done="left out"))
        parts[split] = tuple(images)
    return BoxListing(parts, tuple(labels), tuple(faults))


def read_coco(file: Path) -> _Coco:
    """The content of a COCO file."""
    try:
        content = read_bounded(file, _MOST_BYTES)
        # Windows tools begin UTF-8 with a byte order mark, which JSON does not allow.
        found = _Coco.model_validate_json(content.removeprefix(b"\xef\xbb\xbf"))
    except UnreadableError as error:
        raise EdgetlError(f"{file}: {error.reason}") from error
    except ValidationError as error:
        faults = []
        for detail in error.errors(include_url=False, include_context=False):
            where = ".".join(map(str, detail["loc"])) or "the file"
            value = "" if detail["type"] == "missing" else f" is {str(detail['input'])[:40]!r}"
            # Of broken JSON Pydantic gives the whole text as input.
            faults.append(detail["msg"] if detail["type"] == "json_invalid" else f"{where}{value}: {detail['msg']}")
        raise EdgetlError(f"{file} is not in COCO's format: {shown(faults)}") from None
    names: dict[Id, str] = {}
    for category in found.categories:
        if names.setdefault(category.id, category.name) != category.name:
            raise EdgetlError(
                f"{file}: category id {category.id!r} is {names[category.id]!r} and again {category.name!r}; "
                "give every category an id of its own"
            )
    return found


@dataclass(frozen=True)
class _Finder:
    """Finds images by their ``file_name``. ``folder`` is the root or below it."""

    root: Path
    folder: Path

    # Only walked when a file is not where it is named, and then once: folders hold a hundred thousand images.
    @cached_property
    # # folder is walked once
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = defaultdict(list)
        for path in files_below(self.folder):
            found[path.name].append(path)
        return found

    def __call__(self, name: str) -> str:
        """The path of an image, relative to the root.

        Raises:
            UnreadableError: there is no such image, or more than one.
        """
        if leaves(name):
            raise UnreadableError(f"{name!r} leaves the folder of the images")
        if is_file(self.folder / name):
            return utf8((self.folder / name).relative_to(self.root))
        parts = PurePosixPath(name).parts
        fitting = [
            path for path in self._by_name.get(parts[-1] if parts else "", ()) if path.parts[-len(parts) :] == parts
        ]
        if len(fitting) == 1:
            return utf8(fitting[0].relative_to(self.root))
        if fitting:
            raise UnreadableError(
                f"{len(fitting)} files end in {name!r}; name their folder in file_name, or in data.images"
            )
        raise UnreadableError(f"there is no file {name!r} below {self.folder}")


def _marks(content: _Coco, part: str, named: Mapping[Id, str], faults: list[BoxFault]) -> Mapping[Id, Sequence[RawBox]]:
    """The objects of every image, by its id."""
    images = {image.id for image in content.images}
    found: dict[Id, list[RawBox]] = defaultdict(list)
    seen: set[Id] = set()
    for number, annotation in enumerate(content.annotations):
        where = f"{part}: annotation {number if annotation.id is None else repr(annotation.id)}"
        if annotation.id is not None and annotation.id in seen:
            detail = "another annotation has this id"
            faults.append(BoxFault(where=where, kind="duplicate id", detail=detail, done="kept"))
        if annotation.id is not None:
            seen.add(annotation.id)
        if annotation.image_id not in images:
            detail = f"image_id {annotation.image_id!r} is not among the images"
            faults.append(BoxFault(where=where, kind="missing image", detail=detail, done="left out"))
        elif annotation.category_id not in named:
            detail = f"category_id {annotation.category_id!r} is not among the categories"
            faults.append(BoxFault(where=where, kind="unknown class", detail=detail, done="left out"))
        else:
            left, top, width, height = annotation.bbox
            corners = left, top, left + width, top + height
            label = named[annotation.category_id]
            found[annotation.image_id].append(RawBox(where, label, corners, bool(annotation.iscrowd)))
    return found


def _single(images: Iterable[_Image], part: str, faults: list[BoxFault]) -> Iterator[_Image]:
    """The images with an id of their own. Of an image that is listed twice, the first; of several files, none."""
    by_id: dict[Id, list[_Image]] = defaultdict(list)
    for image in images:
        by_id[image.id].append(image)
    for number, same in by_id.items():
        files = sorted({image.file_name for image in same})
        if len(files) == 1:
            yield same[0]
        if len(same) > 1:
            which = "all of them" if len(files) > 1 else "all but the first"
            detail = f"{len(same)} entries have this id ({', '.join(map(repr, files[:3]))}), {which} were left out"
            where = f"{part}: image {number!r}"
            faults.append(BoxFault(where=where, kind="duplicate id", detail=detail, done="left out"))
