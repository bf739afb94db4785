"""The sections ``training``, ``search``, ``accuracy_control`` and ``budget`` of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from edgetl.yaml_file import Settings


class FinetuneSettings(Settings):
    """How the layers above a cut are tuned, after the head on them has converged.

    ``learning_rate`` is that of the head; every layer farther from it gets ``layer_decay`` times its neighbour's.
    Tuning ends after ``epochs``, or ``patience`` epochs without a lower validation loss; the best epoch is kept.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"rate": "learning_rate"}

    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    layer_decay: float = Field(default=0.8, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    batch_size: int = Field(default=32, ge=1)


class TrainingSettings(Settings):
    """How heads are fitted. Every strength is tried for every head; validation loss chooses.

    ``quantization_aware``: on the features of the trunk in INT8, which is what INT8 will hand them; layers above a cut
    are rounded while they are tuned, as INT8 will round them.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"regularisation": "l2"}

    l2: tuple[Annotated[float, Field(gt=0.0)], ...] = (3e-4, 3e-3, 1e-2, 3e-2, 1e-1)
    views: int = Field(default=1, ge=1, le=64)
    flip: bool = False
    quantization_aware: bool = False
    finetune: FinetuneSettings = FinetuneSettings()

    @field_validator("l2")
    @classmethod
    def _at_least_one(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not strengths:
            raise ValueError("is empty; name at least one")
        return strengths


class SearchSettings(Settings):
    """How many trees of one deployment are built and measured, of all that the cuts make possible."""

    trees: int = Field(default=6, ge=1)


class AccuracyControl(Settings):
    """INT8 is mended until no deployment loses more than this on validation, against itself in FP32."""

    max_accuracy_drop: float = Field(ge=0.0, le=1.0)


class BudgetSettings(Settings):
    """What a deployment may cost. A limit left out is no limit."""

    max_accuracy_drop: float | None = Field(default=None, ge=0.0, le=1.0)
    min_accuracy: float | None = Field(default=None, ge=0.0, le=1.0)
    max_latency_ms: float | None = Field(default=None, gt=0.0)
    max_memory_mb: float | None = Field(default=None, gt=0.0)
    max_energy_mj: float | None = Field(default=None, gt=0.0)
