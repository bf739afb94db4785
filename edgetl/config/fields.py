"""The types of values in a study file, with their validation: names, cuts, fractions, image sizes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from edgetl.config.deployments import DEPLOYMENTS, known_deployment
from edgetl.config.metrics import METRICS, known_metric

Precision = Literal["fp32", "fp16", "int8"]
RuntimeName = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
# Where Q/DQ nodes go and of which type they are: each runtime is fast on a graph of its own format only.
QdqFormat = Literal["tensorrt", "onnxruntime"]
DataFormat = Literal["image-folder", "csv", "digits", "synthetic", "coco", "yolo", "voc"]
CalibrationMethod = Literal["max", "percentile", "entropy", "mse", "auto"]

# The class that a specialist's head gives to images of the other groups.
OTHER = "other"

# Pixels on a side. A larger input is an attack or a mistake, no network that a small device can run.
SMALLEST_IMAGE = 16
LARGEST_IMAGE = 4096


def _safe_name(value: str) -> str:
    # Names become parts of file names, also on Windows, and of tensor names.
    if not value or value in {".", ".."} or any(c in value for c in '/\\\0:*?"<>|\n\r\t'):
        raise ValueError('is used in file names: it may not be empty or hold / \\ : * ? " < > | or control characters')
    return value


def _path_or_fraction(value: object) -> object:
    if isinstance(value, str) or (isinstance(value, int | float) and 0.0 < value < 1.0):
        return value
    raise ValueError(f"is {value!r}, expected a path or a fraction between 0 and 1")


def _label(value: object) -> object:
    # YAML reads digits and years as numbers, which are fine labels, but a bare yes, no, on or off as a truth value.
    if isinstance(value, bool):
        raise ValueError(f"is the YAML truth value {value}: quote the label")
    return str(value) if isinstance(value, int) else value


def _cut(value: object) -> object:
    """A layer's name, ``top`` (only the head is trained), ``images`` (nothing is frozen), several, or a number."""
    several = isinstance(value, tuple) and bool(value) and all(isinstance(name, str) and name for name in value)
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if value is None or several or number or (isinstance(value, str) and value):
        return value
    raise ValueError(f"is {value!r}, expected a layer's name, a list of names, a number of points, or sweep")


def _percent(value: object) -> object:
    """A fraction from 20% or 0.2."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value[:-1]) / 100
        except ValueError:
            pass
    if isinstance(value, float):
        return value
    raise ValueError(f"is {value!r}, expected a fraction such as 20% or 0.2")


def _image_size(value: object) -> object:
    sides = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    for side in () if value is None else sides:
        if not isinstance(side, int) or isinstance(side, bool) or not SMALLEST_IMAGE <= side <= LARGEST_IMAGE:
            raise ValueError(
                f"is {value!r}, expected a number of pixels from {SMALLEST_IMAGE} to {LARGEST_IMAGE}, or "
                "[width, height] of such"
            )
    return value


Name = Annotated[str, AfterValidator(_safe_name)]
DeploymentName = Annotated[
    str,
    AfterValidator(known_deployment),
    Field(json_schema_extra=lambda schema: schema.update(enum=list(DEPLOYMENTS))),
]
MetricName = Annotated[
    str,
    AfterValidator(known_metric),
    Field(json_schema_extra=lambda schema: schema.update(enum=list(METRICS))),
]
Label = Annotated[str, Field(min_length=1), BeforeValidator(_label)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # torch takes 64 bits with a sign, numpy none below 0
CutSetting = Annotated[str | int | tuple[str, ...] | None, BeforeValidator(_cut)]
PathOrFraction = Annotated[str | float, BeforeValidator(_path_or_fraction)]
Fraction = Annotated[float, BeforeValidator(_percent), Field(gt=0.0, lt=1.0)]
ImageSize = Annotated[int | tuple[int, int] | None, BeforeValidator(_image_size)]  # a square's side, or width, height
