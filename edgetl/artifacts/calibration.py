"""The calibration table: one scale per tensor, found once, spelled twice."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact


class TensorRange(Artifact):
    """What calibration saw of one tensor and what it chose: values beyond ``low`` and ``high`` are clipped.

    ``minimum`` and ``maximum`` are the extremes seen; ``low`` <= 0 <= ``high`` are the chosen ends.
    """

    name: str
    minimum: float
    maximum: float
    low: float
    high: float

    @property
    def amax(self) -> float:
        return max(-self.low, self.high)


class CalibrationImage(Artifact):
    path: str
    sha256: str


class CalibrationTable(Artifact):
    """Ranges of every activation that may be quantised, and exactly which images they came from."""

    schema_version: Literal[1] = 1
    method: str
    graph_sha256: str
    images: tuple[CalibrationImage, ...]
    tensors: tuple[TensorRange, ...]

    def by_name(self) -> dict[str, TensorRange]:
        return {tensor.name: tensor for tensor in self.tensors}
