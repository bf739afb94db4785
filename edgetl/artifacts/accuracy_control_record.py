"""What the accuracy guard tried to keep INT8 within its budget, and what came of it."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.measurements import AccuracyEstimate


class AccuracyControlAttempt(Artifact):
    """What was tried to keep the accuracy, and what came of it: ``drop`` from FP32 over the same images.

    ``excluded``: how many layers were not INT8. ``standard_error``: the standard error of the drop. Of several outputs,
    that which lost most.
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
        """What a mix is taken to lose: the luckiest of several attempts is taken, so its luck is not counted on."""
        return self.drop + self.standard_error


class LayerSensitivityRecord(Artifact):
    """Layers that read one tensor, by the tensors they make. See `edgetl.graph.sensitivity.LayerSensitivity`.

    ``excluded``: they are not INT8 in the mix that was taken. ONNX Runtime's spelling takes along those that make what
    such a layer reads.
    """

    layers: tuple[str, ...]
    snr_db: float
    latency_cost: float | None
    excluded: bool


class AccuracyControlResult(Artifact):
    """How the accuracy budget was met, on ``images`` labelled images: ``attempts`` in order, ``chosen`` counts from 0.

    ``metric``: what the accuracy is. ``fp32``: of each output, or each deployment of a study, what the float graph is
    worth. ``layers``: the most harmful first; empty where INT8 as a whole was good enough. ``excluded_precision``: what
    the layers are in that are not INT8. ``why_not_met`` says how far it got where no attempt met the budget; ``chosen``
    is then the nearest.
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
    """A study's: one for each spelling of INT8, because each runtime quantises in other places."""

    schema_version: Literal[2] = 2
    formats: dict[str, AccuracyControlResult]
