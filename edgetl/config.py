"""A study file: YAML in, a frozen and validated `Study` out, every fault reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from edgetl.errors import EdgetlError
from edgetl.yaml_file import Frozen, load_yaml

DeploymentName = Literal["combined", "specialised", "shared", "branched", "cascade", "one-vs-rest"]
Precision = Literal["fp32", "fp16", "int8"]
RuntimeName = Literal["auto", "onnxruntime", "tensorrt-rtx"]
DataFormat = Literal["image-folder", "csv", "digits", "synthetic"]
CalibrationMethod = Literal["max", "percentile", "mse"]

OTHER = "other"
"""The class that a specialist's head gives to images of the other groups."""

LARGEST_IMAGE = 4096
"""Pixels on a side: beyond it a file is hostile rather than a network that a small device can run."""

# What the design names and this version does not have yet: refused by name, not as a typing error.
_NOT_YET = {
    "detect": "detection is not in this version; task: classify is",
    "coco": "detection data is not in this version; use image-folder, csv, digits or synthetic",
    "yolo": "detection data is not in this version; use image-folder, csv, digits or synthetic",
    "voc": "detection data is not in this version; use image-folder, csv, digits or synthetic",
    "tensorrt": "full TensorRT is not in this version; use auto, onnxruntime or tensorrt-rtx",
}

# Heads of other deployments, the input of every graph, and a key of results.json beside the groups.
_TAKEN = frozenset({"combined", "one-vs-rest", "images", "overall"})


def _safe_name(value: str) -> str:
    """Names become parts of file names and of tensor names."""
    if not value or value in {".", ".."} or any(c in value for c in '/\\\0:*?"<>|\n\r\t'):
        raise ValueError('is used in file names: it may not be empty or hold / \\ : * ? " < > | or control characters')
    return value


def _path_or_fraction(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, int | float) and 0.0 < value < 1.0):
        return value
    raise ValueError(f"is {value!r}, expected a path or a fraction between 0 and 1")


def _label(value: object) -> object:
    """Digits and years are labels too; but YAML reads a bare yes, no, on or off as a truth value."""
    if isinstance(value, bool):
        raise ValueError(f"is the YAML truth value {value}: quote the label")
    return str(value) if isinstance(value, int) else value


def _cut(value: object) -> object:
    """A layer's name, ``top`` (only the head is trained), ``images`` (nothing is frozen), or several of them."""
    several = isinstance(value, tuple) and bool(value) and all(isinstance(name, str) and name for name in value)
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if value is None or several or number or (isinstance(value, str) and value):
        return value
    raise ValueError(f"is {value!r}, expected a layer's name, a list of names, a number of points, or sweep")


Name = Annotated[str, AfterValidator(_safe_name)]
Label = Annotated[str, Field(min_length=1), BeforeValidator(_label)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch and numpy both take
Cut = Annotated[str | int | tuple[str, ...] | None, BeforeValidator(_cut)]
PathOrFraction = Annotated[str | float, BeforeValidator(_path_or_fraction)]


class Data(Frozen):
    """Where the images are and how they are split.

    ``train``, ``val`` and ``test`` are a sub-folder (image-folder) or a file (csv) below ``root``, or a
    fraction to be split off ``train`` at random (stratified, seeded).
    """

    format: DataFormat
    root: str | None = None
    train: str | None = None
    val: PathOrFraction = 0.1
    test: PathOrFraction = 0.2
    per_label: int = Field(default=200, ge=3)
    overlap: Literal["refuse", "drop"] = "refuse"
    max_broken_share: float = Field(default=0.01, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _root_where_files_are_read(self) -> Data:
        generated = self.format in {"digits", "synthetic"}
        if not generated and self.root is None:
            raise ValueError(f"format {self.format} needs root: the folder that holds the data")
        if generated and (self.root or self.train or isinstance(self.val, str) or isinstance(self.test, str)):
            raise ValueError(
                f"format {self.format} makes its own images: val and test are fractions, root and train are left out"
            )
        if self.format == "csv" and self.train is None:
            raise ValueError("format csv needs train: the file with the columns path,label")
        if isinstance(self.val, float) and isinstance(self.test, float) and self.val + self.test >= 1.0:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


class Backbone(Frozen):
    """The pretrained network. ``cut: null`` freezes all of it but the head.

    With ``truncate``, heads directly on the output of every cut are tried too, the deeper layers dropped.
    """

    name: str
    weights: str | None = "default"
    image_size: int = Field(default=224, ge=16, le=LARGEST_IMAGE)
    cut: Cut = None
    truncate: bool = False

    @field_validator("name")
    @classmethod
    def _known_library(cls, name: str) -> str:
        library, _, model = name.partition("/")
        if library == "darknet":
            raise ValueError(
                "Darknet backbones are not in this version; use timm/NAME, torchvision/NAME or edgetl/nano"
            )
        if library not in {"timm", "torchvision", "edgetl"} or not model:
            raise ValueError(f"{name!r} is not LIBRARY/MODEL; expected timm/NAME, torchvision/NAME or edgetl/nano")
        if library == "edgetl" and model != "nano":
            raise ValueError(f"{name!r} is unknown; edgetl's own backbone is edgetl/nano")
        return name

    @model_validator(mode="after")
    def _something_to_truncate(self) -> Backbone:
        if self.truncate and self.cut is None:
            raise ValueError("truncate drops the layers above a cut: name one, or cut: sweep")
        return self


class Finetuning(Frozen):
    """How the layers above a cut are tuned, after the head on them has converged.

    ``rate`` is that of the head; every layer farther from it gets ``layer_decay`` times its neighbour's. Tuning ends
    after ``epochs``, or ``patience`` epochs without a lower validation loss; the best epoch is kept.
    """

    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    rate: float = Field(default=1e-3, gt=0.0)
    layer_decay: float = Field(default=0.8, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    batch_size: int = Field(default=32, ge=1)


class Training(Frozen):
    """How heads are fitted. Every strength is tried for every head; validation loss chooses."""

    regularisation: tuple[Annotated[float, Field(gt=0.0)], ...] = (3e-4, 3e-3, 1e-2, 3e-2, 1e-1)
    views: int = Field(default=1, ge=1, le=64)
    flip: bool = False
    finetune: Finetuning = Finetuning()

    @field_validator("regularisation")
    @classmethod
    def _some_strength(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not strengths:
            raise ValueError("is empty; name at least one")
        return strengths


class Search(Frozen):
    """How many trees of one deployment are built and measured, of all that the cuts make possible."""

    trees: int = Field(default=6, ge=1)


class Budget(Frozen):
    """What a deployment may cost. A limit left out is no limit."""

    max_accuracy_drop: float | None = Field(default=None, ge=0.0, le=1.0)
    min_accuracy: float | None = Field(default=None, ge=0.0, le=1.0)
    max_latency_ms: float | None = Field(default=None, gt=0.0)
    max_memory_mb: float | None = Field(default=None, gt=0.0)
    max_energy_mj: float | None = Field(default=None, gt=0.0)


class Recipe(Frozen):
    """How INT8 ranges are found: a file in ``calibration/``. The defaults are ``calibration/default.yaml``."""

    method: CalibrationMethod = "mse"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    images: int = Field(default=256, ge=1)
    seed: Seed = 0


class Study(Frozen):
    """One question asked of one data set."""

    name: Name
    task: Literal["classify"] = "classify"
    data: Data
    groups: dict[Name, tuple[Label, ...]]
    backbone: Backbone
    deployments: tuple[DeploymentName, ...] = ("combined", "specialised", "shared")
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    runtime: RuntimeName = "auto"
    calibration: str = "default"
    budget: Budget = Budget()
    training: Training = Training()
    search: Search = Search()
    seed: Seed = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of all groups, in the order of the study file."""
        return tuple(label for group in self.groups.values() for label in group)

    @field_validator("groups")
    @classmethod
    def _groups_are_disjoint(cls, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        faults = list(_group_faults(groups))
        if faults:
            raise ValueError("; ".join(faults))
        return groups

    @field_validator("deployments", "precisions")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("is empty; name at least one")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice")
        return names

    @model_validator(mode="after")
    def _specialists_need_negatives(self) -> Study:
        if len(self.groups) < 2 and {"specialised", "shared", "branched", "cascade"} & set(self.deployments):
            raise ValueError(
                "specialised, shared, branched and cascade need at least two groups: the other groups' images are the "
                "negatives of a specialist; name a second group, or leave deployments: [combined]"
            )
        return self

    @model_validator(mode="after")
    def _branches_need_a_cut(self) -> Study:
        tuned = {"combined", "specialised", "branched", "cascade"} & set(self.deployments)
        if "branched" in self.deployments and self.backbone.cut is None:
            raise ValueError(
                "branched needs backbone.cut: the layer where its branches begin, or sweep to find the best"
            )
        if self.backbone.cut is not None and not tuned:
            raise ValueError(
                f"backbone.cut has no use for {' and '.join(self.deployments)}, whose trunks stay frozen; "
                "add branched, or leave cut out"
            )
        return self


def _group_faults(groups: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    if not groups:
        yield "no group is named"
    seen: dict[str, str] = {}
    for group, labels in groups.items():
        if not labels:
            yield f"group {group!r} has no labels"
        if group in _TAKEN:
            yield f"group name {group!r} is taken: it means something else in graphs or results"
        if "@" in group:
            yield f"group name {group!r} holds an @, which stands between a head and its cut"
        for label in labels:
            if label == OTHER:
                yield f"label {OTHER!r} in group {group!r} is reserved for images of the other groups"
            elif label in seen:
                yield f"label {label!r} is in group {seen[label]!r} and again in group {group!r}"
            seen.setdefault(label, group)


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: with every fault of the file, each naming its line and key.
        EdgetlError: the file cannot be read or is no YAML.
    """
    return load_yaml(path, Study, _NOT_YET)


def load_recipe(name: str, beside: Path) -> Recipe:
    """The calibration recipe ``name``: a path, or a name in a ``calibration/`` folder.

    The folder is looked for beside the study file, then in the working directory. ``default`` needs no file.
    """
    candidates = (
        [beside / name]
        if name.endswith((".yaml", ".yml"))
        else [folder / "calibration" / f"{name}.yaml" for folder in (beside, Path())]
    )
    for candidate in candidates:
        if candidate.is_file():
            return load_yaml(candidate, Recipe, {})
    if name == "default":
        return Recipe()
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise EdgetlError(f"calibration recipe {name!r} was not found; looked for {tried}")
