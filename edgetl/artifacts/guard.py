"""What the accuracy guard tried to keep INT8 within its budget, and what came of it."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.estimate import Estimate
from edgetl.artifacts.files import Artifact


class Attempt(Artifact):
    """What was tried to keep the accuracy, and what came of it: ``drop`` from FP32 over the same images.

    ``returned``: how many layers were not INT8. ``error``: the standard error of the drop. Of several outputs, that
    which lost most.
    """

    what: str
    returned: int
    accuracy: Estimate
    drop: float
    error: float
    drop_low: float
    drop_high: float

    @property
    def loss(self) -> float:
        """What a mix is taken to lose: the luckiest of several attempts is taken, so its luck is not counted on."""
        return self.drop + self.error


class LayerNote(Artifact):
    """Layers that read one tensor, by the tensors they make. See `edgetl.graph.sensitivity.LayerLoss`.

    ``returned``: they are not INT8 in the mix that was taken. ONNX Runtime's spelling takes along those that make what
    such a layer reads.
    """

    layers: tuple[str, ...]
    snr_db: float
    latency_cost: float | None
    returned: bool


class Guard(Artifact):
    """How the accuracy budget was met, on ``images`` labelled images: ``attempts`` in order, ``taken`` counts from 0.

    ``metric``: what the accuracy is. ``fp32``: of each output, or each deployment of a study, what the float graph is
    worth. ``layers``: the most harmful first; empty where INT8 as a whole was good enough. ``returned_to``: what the
    layers are in that are not INT8. ``missed`` says how far it got where no attempt met the budget; ``taken`` is then
    the nearest.
    """

    max_accuracy_drop: float
    metric: str | None = None
    images: int
    fp32: dict[str, Estimate]
    attempts: tuple[Attempt, ...]
    taken: int
    layers: tuple[LayerNote, ...]
    returned_to: Literal["fp16", "fp32"]
    missed: str | None = None


class StudyGuard(Artifact):
    """A study's: one for each spelling of INT8, because each runtime quantises in other places."""

    schema_version: Literal[1] = 1
    spellings: dict[str, Guard]
