"""The calibration table: the range of every tensor, found once and used for both QDQ formats."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import computed_field, model_validator

from edgetl.artifacts.files import Artifact

# Steps of symmetric INT8 on either side of 0; -128 is not used.
LEVELS = 127


class MagnitudeHistogram(Artifact):
    """A histogram of a tensor's magnitudes: the count in each bin of ``width``, from 0 to the last non-empty one."""

    width: float
    counts: tuple[int, ...]


class TensorRange(Artifact):
    """The range of one tensor: values below ``low`` or above ``high`` are clipped, where ``low`` <= 0 <= ``high``.

    ``minimum`` and ``maximum`` are the extremes that calibration saw. ``amax`` and ``scale`` (one step of symmetric
    INT8) are computed from ``low`` and ``high``; they are in the file for its readers.
    """

    name: str
    method: str = ""
    minimum: float
    maximum: float
    low: float
    high: float
    magnitudes: MagnitudeHistogram | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_computed_fields(cls, value: Any) -> Any:
        # A record takes no unknown keys, and these two are only written.
        return {k: v for k, v in value.items() if k not in {"amax", "scale"}} if isinstance(value, dict) else value

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def amax(self) -> float:
        return max(-self.low, self.high)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def scale(self) -> float:
        return self.amax / LEVELS


class CalibrationImage(Artifact):
    path: str
    sha256: str


class CalibrationTrial(Artifact):
    """The result of one method on one variant of the graph, on calibration images.

    ``snr_db``: signal-to-noise of the graph's outputs in INT8; ``accuracy``: top-1 in INT8.
    """

    method: str
    snr_db: float
    accuracy: float | None = None


class FirstLayers(Artifact):
    """The layers that read the images, named by the tensors they make, and whether they are INT8.

    ``snr_db``: signal-to-noise of the graph's outputs with these layers in float and all others in INT8;
    ``snr_db_int8``: with these in INT8 too. ``saved``: the fraction of the graph's estimated FP32 latency that INT8
    saves here; None where sizes are unknown, and the noise alone decides.
    """

    layers: tuple[str, ...]
    snr_db: float
    snr_db_int8: float
    saved: float | None
    int8: bool


class LastLayer(Artifact):
    """The last layer before an output, named by the tensor it makes, and whether it is INT8.

    ``snr_db``: signal-to-noise of that output with this layer in float and all others in INT8; ``snr_db_int8``: with
    this one in INT8 too. ``saved``: the fraction of the graph's estimated FP32 latency that INT8 saves here; 0 where
    sizes are unknown.
    """

    layer: str
    snr_db: float
    snr_db_int8: float
    saved: float
    int8: bool


class CalibrationTable(Artifact):
    """The ranges of all activations that may be quantized, and the images that they were found on.

    ``variant``: how the float graph was changed first, if at all; ``graph_sha256`` is that of the changed graph.
    ``trials``: the results of all methods, best first, where ``auto`` chose among them. ``first``: the first layers,
    which are INT8 where this is None; ``last``: the last layers, of which those that are not listed are float.
    """

    schema_version: Literal[2] = 2
    method: str
    variant: str = ""
    graph_sha256: str
    images: tuple[CalibrationImage, ...]
    trials: tuple[CalibrationTrial, ...] = ()
    first: FirstLayers | None = None
    last: tuple[LastLayer, ...] = ()
    tensors: tuple[TensorRange, ...]

    def by_name(self) -> dict[str, TensorRange]:
        return {tensor.name: tensor for tensor in self.tensors}

    def first_in_float(self) -> tuple[str, ...]:
        """The first layers that are not INT8, named by the tensor they make."""
        return () if self.first is None or self.first.int8 else self.first.layers

    def with_last_in_float(self) -> CalibrationTable:
        """A copy of the table with no last layer in INT8."""
        return self.replaced(last=tuple(note.replaced(int8=False) for note in self.last))

    def last_in_int8(self) -> frozenset[str]:
        """The last layers that are INT8, named by the tensor they make."""
        return frozenset(note.layer for note in self.last if note.int8)
