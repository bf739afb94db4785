"""The calibration table: one scale per tensor, found once, spelled twice."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import computed_field, model_validator

from edgetl.artifacts.files import Artifact

LEVELS = 127
"""Steps of symmetric INT8 on either side of 0."""


class MagnitudeHistogram(Artifact):
    """A histogram of a tensor's magnitudes: how many lie in each bin of ``width``, from 0 to the last that has any."""

    width: float
    counts: tuple[int, ...]


class TensorRange(Artifact):
    """What calibration saw of one tensor and what it chose: values beyond ``low`` and ``high`` are clipped.

    ``minimum`` and ``maximum`` are the extremes seen; ``low`` <= 0 <= ``high`` are the chosen ends. ``amax`` and
    ``scale`` (one step of symmetric INT8) follow from them and stand in the file for those who read it.
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
    def _without_what_follows(cls, value: Any) -> Any:
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
    """What a method (and what was done to the graph before it) came to on some calibration images.

    ``snr_db``: signal to noise of the graph's results in INT8; ``accuracy``: top-1 in INT8.
    """

    method: str
    snr_db: float
    accuracy: float | None = None


class FirstLayers(Artifact):
    """The layers that images come to first, by the tensors they make, and whether they are INT8 like the others.

    ``snr_db``: signal to noise of the graph's results with these layers in float and all others in INT8;
    ``snr_db_int8``: with these in INT8 too. ``saved``: the share of the graph's estimated latency that this saves
    against FP32; None where its sizes are not known, and the noise alone decides.
    """

    layers: tuple[str, ...]
    snr_db: float
    snr_db_int8: float
    saved: float | None
    int8: bool


class LastLayer(Artifact):
    """The last layer before a result, by the tensor it makes, and whether it is INT8 like the others.

    ``snr_db``: signal to noise of that result with all other layers in INT8 and this one in float; ``snr_db_int8``:
    with this one in INT8 too. ``saved``: the share of the graph's estimated latency that this saves against FP32; 0
    where its sizes are not known.
    """

    layer: str
    snr_db: float
    snr_db_int8: float
    saved: float
    int8: bool


class CalibrationTable(Artifact):
    """Ranges of every activation that may be quantised, and exactly which images they came from.

    ``variant``: what was done to the float graph first, if anything; ``graph_sha256`` is then of that graph.
    ``trials``: where the method was chosen by ``auto``, what each of them came to, the best first. ``first``: what it
    found of the first layers, which else are INT8; ``last``: of the last ones, of which those not named are float.
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
        """The first layers that are not INT8, by the tensor they make."""
        return () if self.first is None or self.first.int8 else self.first.layers

    def with_last_in_float(self) -> CalibrationTable:
        """The same table with no last layer in INT8."""
        return self.model_copy(update={"last": tuple(note.model_copy(update={"int8": False}) for note in self.last)})

    def last_in_int8(self) -> frozenset[str]:
        """The last layers that are INT8, by the tensor they make."""
        return frozenset(note.layer for note in self.last if note.int8)
