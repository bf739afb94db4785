"""The section ``data`` of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from edgetl.config.fields import DataFormat, PathOrFraction
from edgetl.yaml_file import Settings

GENERATED = frozenset({"digits", "synthetic"})
"""The formats whose images edgetl makes in the run directory."""

FORMATS: dict[str, frozenset[str]] = {
    "classify": frozenset({"image-folder", "csv", "digits", "synthetic"}),
    "detect": frozenset({"coco", "yolo", "voc", "synthetic"}),
}
"""The formats that a task can read."""

_TRAIN_FILES = {
    "csv": "the file with the columns path,label",
    "coco": "the JSON file with the annotations",
    "yolo": "the folder of images, or the file that lists them",
    "voc": "the file that lists the names of the images, such as ImageSets/Main/train.txt",
}


class DataSettings(Settings):
    """Where the images are and how they are split.

    ``train``, ``val`` and ``test`` are a sub-folder (image-folder), a file (csv, coco: annotations, voc: a list of
    names) or either of them (yolo: images) below ``root``, or a fraction to be split off ``train`` at random
    (stratified, seeded).

    For boxes: ``images`` is the folder below ``root`` that holds the images (coco: left out, ``root`` itself; voc:
    JPEGImages), ``names`` the file below ``root`` with yolo's class names, one on every line or in a YAML file under
    the key ``names``; ``scenes`` is how many are drawn.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {
        "overlap": "split_duplicates",
        "max_broken_share": "max_broken_fraction",
    }

    format: DataFormat
    root: str | None = None
    train: str | None = None
    val: PathOrFraction = 0.1
    test: PathOrFraction = 0.2
    per_label: int = Field(default=200, ge=3)
    images: str | None = None
    names: str | None = None
    scenes: int = Field(default=600, ge=10)
    split_duplicates: Literal["refuse", "drop"] = "refuse"
    max_broken_fraction: float = Field(default=0.01, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _root_where_files_are_read(self) -> DataSettings:
        generated = self.format in GENERATED
        if not generated and self.root is None:
            raise ValueError(f"format {self.format} needs root: the folder that holds the data")
        if generated and (self.root or self.train or isinstance(self.val, str) or isinstance(self.test, str)):
            raise ValueError(
                f"format {self.format} makes its own images: val and test are fractions, root and train are left out"
            )
        expected = _TRAIN_FILES.get(self.format)
        if expected is not None and self.train is None:
            raise ValueError(f"format {self.format} needs train: {expected}")
        if self.names is not None and self.format != "yolo":
            raise ValueError(f"names is for format yolo; {self.format} names its classes itself")
        if self.names is None and self.format == "yolo":
            raise ValueError("format yolo needs names: the file with its class names, such as coco.names or data.yaml")
        if self.images is not None and self.format not in {"coco", "voc"}:
            raise ValueError(f"images is for formats coco and voc; {self.format} says itself where they are")
        if isinstance(self.val, float) and isinstance(self.test, float) and self.val + self.test >= 1.0:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self
