"""The data sets that edgetl makes itself: scikit-learn's digits, and drawn road scenes with one object or several."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.artifacts.files import cannot_write, temporary
from edgetl.config import Study
from edgetl.data.boxes.box_listing import BoxListing
from edgetl.data.listing import Listing, refuse_unknown_labels
from edgetl.errors import EdgetlError, MissingExtraError

_MADE = ".made-by-edgetl"
_FOLDER = "data/road-scenes"


def digits(study: Study, _root: Path, run: Path) -> Listing:
    """scikit-learn's handwritten digits, at most ``per_label`` of each, 8 x 8 enlarged to 32 x 32."""

    def render(directory: Path) -> Iterator[tuple[str, str]]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingExtraError("data.format digits", "train", error) from error
        images, targets = load_digits(return_X_y=True)  # 8 x 8 values from 0 to 16 in rows of 64
        taken: Counter[str] = Counter()
        for image, label in zip(images.reshape(-1, 8, 8), map(str, targets), strict=True):
            if taken[label] == study.data.per_label:
                continue
            path = f"{label}/{taken[label]:03d}.png"
            taken[label] += 1
            (directory / label).mkdir(exist_ok=True)
            grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
            # Nearest: enlarged smoothly, the pixels would be made up.
            grey.resize((32, 32), Image.Resampling.NEAREST).save(directory / path)
            yield path, label

    return _generated(run, "digits", render)


def synthetic(study: Study, _root: Path, run: Path) -> Listing:
    """Drawn road scenes, ``per_label`` of every label of the study, with one object each."""
    # Imported here: only this format draws, and the drawing is a large module.
    from edgetl.data.scenes.one_object import LABELS, render_scenes

    refuse_unknown_labels(study, LABELS)
    per_label, seed, labels = study.data.per_label, study.seed, study.labels
    return _generated(run, "synthetic", lambda directory: render_scenes(directory, labels, per_label, seed))


def _generated(run: Path, name: str, render: Callable[[Path], Iterable[tuple[str, str]]]) -> Listing:
    """The listing of a set that is made in the run directory, anew at every call: what lies there may be damaged."""
    directory = run / "data" / name
    with whole_folder(directory) as partial:
        rows = tuple((f"data/{name}/{path}", label) for path, label in render(partial))
    return Listing(rows, generated=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well.

    It then lists its files. An older folder is replaced if it holds nothing but what its list names.

    Raises:
        EdgetlError: the folder cannot be written, or the older one holds files that edgetl did not make.
    """
    try:
        _refuse_strangers(path)
        partial = temporary(path)
        partial.mkdir(parents=True)
        try:
            yield partial
            (partial / _MADE).write_text("".join(f"{name}\n" for name in _files(partial)), encoding="utf-8")
            _refuse_strangers(path)  # again: drawing takes a while, in which somebody may have put a file there
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _refuse_strangers(path: Path) -> None:
    made = (path / _MADE).read_text(encoding="utf-8").splitlines() if (path / _MADE).is_file() else []
    strangers = sorted({*_files(path)} - {*made, _MADE})
    if strangers:
        raise EdgetlError(f"{path / strangers[0]} was not made by edgetl, which draws all of {path} anew; move it away")


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())


def synthetic_boxes(study: Study, run: Path) -> BoxListing:
    """``data.scenes`` drawn road scenes with objects of the study's labels, drawn anew at every call."""
    # Imported here: only this format draws, and the drawing is a large module.
    from edgetl.data.scenes.many_objects import render_boxed_scenes
    from edgetl.data.scenes.one_object import LABELS

    refuse_unknown_labels(study, LABELS)
    with whole_folder(run / _FOLDER) as partial:
        scenes = tuple(render_boxed_scenes(partial, study.labels, study.data.scenes, study.seed))
    train = tuple(replace(scene, path=f"{_FOLDER}/{scene.path}") for scene in scenes)
    return BoxListing({"train": train}, LABELS, generated=True)
