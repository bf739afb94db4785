"""The record of accuracy control: what it tried, and which layers it excluded from INT8."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.measurements import AccuracyEstimate


class AccuracyControlAttempt(Artifact):
    """One attempt: the accuracy and its ``drop`` from FP32 on the same images, of the output that lost most.

    ``excluded`` is the number of layers that were not INT8, ``standard_error`` that of the drop.
    """

    variant: str
    excluded: int
    accuracy: AccuracyEstimate
    drop: float
    standard_error: float
    drop_low: float
    drop_high: float

    @property
    def pessimistic_drop(self) -> float:
        """The drop that the attempt is judged by."""
        # The best of several attempts was lucky, too: one standard error keeps that luck from being counted on.
        return self.drop + self.standard_error


class LayerSensitivityRecord(Artifact):
    """Layers that read one tensor, named by the tensors they make; see `edgetl.graph.sensitivity.LayerSensitivity`.

    ``excluded``: the chosen attempt does not compute them in INT8. In ONNX Runtime's QDQ format the layers that make
    such a layer's input are excluded with it.
    """

    layers: tuple[str, ...]
    snr_db: float
    latency_cost: float | None
    excluded: bool


class AccuracyControlResult(Artifact):
    """How the accuracy budget was met, on ``images`` labelled images: ``attempts`` in order, ``chosen`` counts from 0.

    ``fp32`` is the float graph's accuracy at each output, or of each deployment of a study; ``metric`` names the kind
    of accuracy. ``layers``: the most harmful first; none where INT8 as a whole was good enough. ``excluded_precision``
    is the precision of excluded layers. Where no attempt met the budget, ``chosen`` came nearest, and ``why_not_met``
    says how near.
    """

    max_accuracy_drop: float
    metric: str | None = None
    images: int
    fp32: dict[str, AccuracyEstimate]
    attempts: tuple[AccuracyControlAttempt, ...]
    chosen: int
    layers: tuple[LayerSensitivityRecord, ...]
    excluded_precision: Literal["fp16", "fp32"]
    why_not_met: str | None = None


class StudyAccuracyControl(Artifact):
    """A study's accuracy control: a result for each QDQ format, because runtimes quantize in different places."""

    schema_version: Literal[2] = 2
    formats: dict[str, AccuracyControlResult]
