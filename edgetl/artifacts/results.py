"""`results.json`: what other programs read. `schema_version` comes first and changes with the shape."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.index import BrokenFile


class EngineFile(Artifact):
    """An engine of a deployment. ``file`` is relative to the run directory."""

    file: str
    sha256: str
    bytes: int


class Estimate(Artifact):
    """A share of ``n`` images with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


class Accuracy(Artifact):
    """Top-1 accuracy. In ``groups`` all labels compete; in ``masked`` only those of the image's own group.

    In JSON it is flat: ``overall`` and each group by name, each an estimate, a group's with its ``masked`` one inside.
    """

    overall: Estimate
    groups: dict[str, Estimate]
    masked: dict[str, Estimate]

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        groups = {
            name: estimate.model_dump() | {"masked": self.masked[name].model_dump()}
            for name, estimate in self.groups.items()
        }
        return {"overall": self.overall.model_dump(), **groups}

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.keys() == cls.model_fields.keys():
            return content
        groups = {name: estimate for name, estimate in content.items() if name != "overall"}
        if not all(isinstance(estimate, dict) and "masked" in estimate for estimate in groups.values()):
            raise ValueError("every group needs value, low, high, n and masked")
        masked = {name: estimate["masked"] for name, estimate in groups.items()}
        groups = {name: {k: v for k, v in estimate.items() if k != "masked"} for name, estimate in groups.items()}
        return {"overall": content.get("overall"), "groups": groups, "masked": masked}


class Latency(Artifact):
    """Milliseconds for one image through all engines of the deployment, one after another.

    ``low`` and ``high`` bound ``p50`` (95 % bootstrap interval over rounds). ``stable`` is false where they are too far
    apart or the machine's speed drifted; such a figure is never a win.
    """

    p50: float
    p90: float
    p99: float
    mean: float
    low: float
    high: float
    samples: int
    rounds: int
    stable: bool
    why_unstable: str | None = None


class Measured(Artifact):
    """One deployment in one precision. Where it could not be run, ``unsupported`` says why and the figures are null.

    ``cuts`` says for each group (or ``combined``) where its frozen layers end; ``flops`` are those of one image.
    """

    name: str
    precision: str
    runtime: str
    cuts: dict[str, str] = Field(default_factory=dict)
    flops: int | None = None
    engines: tuple[EngineFile, ...] = ()
    unsupported: str | None = None
    accuracy: Accuracy | None = None
    latency_ms: Latency | None = None
    throughput_ips: float | None = None
    memory_mb: float | None = None
    energy_mj: float | None = None

    @property
    def title(self) -> str:
        return f"{self.name} {self.precision}"


class Comparison(Artifact):
    """``a`` against ``b``, paired: image by image for accuracy (difference), round by round for latency (ratio a/b)."""

    a: str
    b: str
    metric: Literal["accuracy", "latency"]
    difference: float | None = None
    ratio: float | None = None
    low: float
    high: float


class Evaluation(Artifact):
    """Accuracy of every deployment and precision on the test set: the part of `results.json` that `evaluate` writes."""

    schema_version: Literal[1] = 1
    images: int
    deployments: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    broken: tuple[BrokenFile, ...]


class Profile(Artifact):
    """Latency and memory of every deployment and precision: the part of `results.json` that `profile` writes."""

    schema_version: Literal[1] = 1
    environment: dict[str, Any]
    deployments: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]


class Tree(Artifact):
    """A deployment with a cut for each of its heads, as the search saw it before anything was built.

    ``cuts`` maps a group (or ``combined``) to a layer's name, ``top``, ``images``, or ``truncated-LAYER``.
    ``estimate`` is a latency without a unit, to compare trees of one study by.
    """

    name: str
    deployment: str
    cuts: dict[str, str]
    val_accuracy: float
    flops: int
    parameters: int
    estimate: float
    measured: bool


class Verdict(Artifact):
    """What to ship, and why in plain sentences. ``deployment`` is null where nothing meets the budget."""

    deployment: str | None
    precision: str | None
    budget_met: bool
    stable: bool
    reasons: tuple[str, ...]


class Results(Artifact):
    """The whole answer of a study."""

    schema_version: Literal[1] = 1
    study: str
    environment: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any]
    budget: dict[str, float]
    deployments: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]
    trees: tuple[Tree, ...] = ()
    verdict: Verdict
