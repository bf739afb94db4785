"""A study file: YAML in, a frozen and validated `Study` out, every fault reported at once."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from edgetl.errors import EdgetlError, StudyError

DeploymentName = Literal["combined", "specialised", "shared", "one-vs-rest"]
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
    "branched": "branched deployments are not in this version; use combined, specialised, shared, one-vs-rest",
    "tensorrt": "full TensorRT is not in this version; use auto, onnxruntime or tensorrt-rtx",
    "cascade": "cascades are not in this version; use combined, specialised, shared, one-vs-rest",
}

_MOST_VALUES = 100_000
_LONGEST_VALUE = 1000
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators


# Heads of other deployments, the input of every graph, and a key of results.json beside the groups.
_TAKEN = frozenset({"combined", "one-vs-rest", "images", "overall"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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


Name = Annotated[str, AfterValidator(_safe_name)]
Label = Annotated[str, Field(min_length=1), BeforeValidator(_label)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what torch and numpy both take
PathOrFraction = Annotated[str | float, BeforeValidator(_path_or_fraction)]


class Data(_Frozen):
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


class Backbone(_Frozen):
    """The pretrained network. ``cut: null`` freezes all of it but the head."""

    name: str
    weights: str | None = "default"
    image_size: int = Field(default=224, ge=16, le=LARGEST_IMAGE)
    cut: str | None = None

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

    @field_validator("cut")
    @classmethod
    def _cut_not_yet(cls, cut: str | None) -> str | None:
        if cut is not None:
            raise ValueError(
                f"a cut at a layer ({cut!r}) is not in this version; leave cut out to freeze all but the head"
            )
        return cut


class Training(_Frozen):
    """How heads are fitted. Every strength is tried for every head; validation loss chooses."""

    regularisation: tuple[Annotated[float, Field(gt=0.0)], ...] = (3e-4, 3e-3, 1e-2, 3e-2, 1e-1)
    views: int = Field(default=1, ge=1, le=64)
    flip: bool = False

    @field_validator("regularisation")
    @classmethod
    def _some_strength(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not strengths:
            raise ValueError("is empty; name at least one")
        return strengths


class Budget(_Frozen):
    """What a deployment may cost. A limit left out is no limit."""

    max_accuracy_drop: float | None = Field(default=None, ge=0.0, le=1.0)
    min_accuracy: float | None = Field(default=None, ge=0.0, le=1.0)
    max_latency_ms: float | None = Field(default=None, gt=0.0)
    max_memory_mb: float | None = Field(default=None, gt=0.0)
    max_energy_mj: float | None = Field(default=None, gt=0.0)


class Recipe(_Frozen):
    """How INT8 ranges are found: a file in ``calibration/``. The defaults are ``calibration/default.yaml``."""

    method: CalibrationMethod = "mse"
    percentile: float = Field(default=99.99, gt=50.0, le=100.0)
    images: int = Field(default=256, ge=1)
    seed: Seed = 0


class Study(_Frozen):
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
        if len(self.groups) < 2 and {"specialised", "shared"} & set(self.deployments):
            raise ValueError(
                "specialised and shared need at least two groups: the other groups' images are the negatives "
                "of a specialist; name a second group, or leave deployments: [combined]"
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
        for label in labels:
            if label == OTHER:
                yield f"label {OTHER!r} in group {group!r} is reserved for images of the other groups"
            elif label in seen:
                yield f"label {label!r} is in group {seen[label]!r} and again in group {group!r}"
            seen.setdefault(label, group)


_Model = TypeVar("_Model", bound=_Frozen)


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises:
        StudyError: with every fault of the file, each naming its line and key.
        EdgetlError: the file cannot be read or is no YAML.
    """
    return _load(path, Study)


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
            return _load(candidate, Recipe)
    if name == "default":
        return Recipe()
    tried = " and ".join(str(candidate) for candidate in candidates)
    raise EdgetlError(f"calibration recipe {name!r} was not found; looked for {tried}")


def _load(path: Path, model: type[_Model]) -> _Model:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EdgetlError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdgetlError(f"{path} cannot be read: {error}") from error
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        duplicates = list(_index_lines(node, (), lines)) if node is not None else []
        content = yaml.safe_load(text)
    except Exception as error:  # a value that its tag does not fit lets PyYAML raise whatever Python does
        raise EdgetlError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise EdgetlError(f"{path} holds {type(content).__name__}, expected a mapping of keys such as name and data")
    try:
        result = model.model_validate(_tuples(content))
    except ValidationError as error:
        faults = duplicates + [_explain(detail, lines, model) for detail in error.errors()]
        raise StudyError(str(path), faults) from None
    if duplicates:
        raise StudyError(str(path), duplicates)
    return result


def _index_lines(node: yaml.Node, at: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Iterator[str]:
    """Record the line of every key; yield a fault for each key that a mapping holds twice.

    Raises:
        ValueError: a value cannot be shown in one line, or aliases of aliases unfold to too many.
    """
    lines.setdefault(at, node.start_mark.line + 1)
    if len(lines) > _MOST_VALUES:
        raise ValueError(f"it unfolds to more than {_MOST_VALUES} values")
    if isinstance(node, yaml.ScalarNode):
        _refuse_unprintable(node)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                _refuse_unprintable(key)
            name = str(key.value)
            below = (*at, name)
            if name in seen:
                yield f"line {key.start_mark.line + 1}: {'.'.join(below)} is given twice"
            seen.add(name)
            lines[below] = key.start_mark.line + 1
            yield from _index_lines(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _index_lines(item, (*at, str(position)), lines)


def _refuse_unprintable(node: yaml.ScalarNode) -> None:
    """Values end up in messages, file names and JSON."""
    if len(node.value) > _LONGEST_VALUE:
        raise ValueError(f"line {node.start_mark.line + 1}: a value has {len(node.value)} characters")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in node.value):
        raise ValueError(f"line {node.start_mark.line + 1}: {node.value!r} holds a control character")


def _tuples(value: Any) -> Any:
    """Lists as tuples: strict models take no list for a tuple."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def _explain(detail: ErrorDetails, lines: Mapping[tuple[str, ...], int], model: type[_Frozen]) -> str:
    location = tuple(str(part) for part in detail["loc"] if part != "[key]")
    # Unions append the tried type to the location; the longest prefix that is in the file is the key.
    known = next((location[:n] for n in range(len(location), 0, -1) if location[:n] in lines), ())
    missing = detail["type"] == "missing"
    shown = location if missing else known
    line = lines.get(known or (), 1)
    key = ".".join(shown) or "the file"
    return f"line {line}: {key} {_fault(detail, model, location)}"


def _fault(detail: ErrorDetails, model: type[_Frozen], location: tuple[str, ...]) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        fields = list(_fields_at(model, location[:-1]))
        return f"is not a known key{did_you_mean(location[-1], fields)}"
    if kind == "literal_error":
        if str(found) in _NOT_YET:
            return f"is {found!r}: {_NOT_YET[str(found)]}"
        choices = str(detail.get("ctx", {}).get("expected", ""))
        words = choices.replace("'", "").replace(" or ", ", ").split(", ")
        return f"is {found!r}, expected {choices}{did_you_mean(str(found), words)}"
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"is {found!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _fields_at(model: type[BaseModel], location: tuple[str, ...]) -> Iterator[str]:
    for part in location:
        field = model.model_fields.get(part)
        nested = field.annotation if field is not None else None
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return
        model = nested
    yield from model.model_fields


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` where a known word is near, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
