"""`results.json`: what other programs read. `schema_version` comes first and changes with the shape."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import Artifact
from edgetl.artifacts.measurements import (
    AccuracyEstimate,
    DeviceEstimate,
    Energy,
    EngineLayers,
    Memory,
    Scenario,
    Waterfall,
)

Metric = Literal["top-1", "mAP@0.5"]
"""What ``accuracy`` is, in a whole study."""


class EngineFile(Artifact):
    """An engine of a deployment. ``file`` is relative to the run directory."""

    file: str
    sha256: str
    bytes: int


class Accuracy(Artifact):
    """Top-1 accuracy, or mAP@0.5. In ``groups`` all labels compete; in ``masked`` only those of the image's own group.

    In JSON it is flat: ``overall`` and each group by name, each an estimate, a group's with its ``masked`` one inside.
    Detection has no ``masked``.
    """

    overall: AccuracyEstimate
    groups: dict[str, AccuracyEstimate]
    masked: dict[str, AccuracyEstimate] = Field(default_factory=dict)

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        groups = {name: estimate.model_dump() for name, estimate in self.groups.items()}
        for name, estimate in self.masked.items():
            groups[name]["masked"] = estimate.model_dump()
        return {"overall": self.overall.model_dump(), **groups}

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, content: Any) -> Any:
        if not isinstance(content, dict) or _holds_groups(content.get("groups")):
            return content
        groups = {name: estimate for name, estimate in content.items() if name != "overall"}
        if not all(isinstance(estimate, dict) for estimate in groups.values()):
            raise ValueError("every group needs value, low, high and n")
        masked = {name: estimate["masked"] for name, estimate in groups.items() if "masked" in estimate}
        groups = {name: {k: v for k, v in estimate.items() if k != "masked"} for name, estimate in groups.items()}
        return {"overall": content.get("overall"), "groups": groups, "masked": masked}


def _holds_groups(groups: Any) -> bool:
    """Whether this is the field of that name: in flat JSON a group may have that name, and is then an estimate."""
    return isinstance(groups, dict) and not isinstance(groups.get("value"), int | float)


class MeanAveragePrecision(Artifact):
    """Mean average precision of some labels: at IoU 0.5, and the mean over IoU 0.50, 0.55, ... 0.95."""

    ap50: AccuracyEstimate
    ap: AccuracyEstimate


class LabelPrecision(Artifact):
    """Average precision of a label that has so many test objects; without any there is none."""

    objects: int
    ap50: AccuracyEstimate | None = None
    ap: AccuracyEstimate | None = None


class AveragePrecision(Artifact):
    """What a detector is measured by. A group without test objects is left out."""

    overall: MeanAveragePrecision
    groups: dict[str, MeanAveragePrecision]
    labels: dict[str, LabelPrecision]


class Percentiles(Artifact):
    """A part of a latency, in milliseconds."""

    p50: float
    p90: float
    p99: float
    mean: float


class DeviceTimes(Artifact):
    """What CUDA events tell of an inference, as trtexec defines it: ``latency`` is ``h2d`` + ``compute`` + ``d2h``.

    ``h2d`` and ``d2h`` are the copies to the device and back; ``enqueue`` is the host's time to queue the execution.
    """

    h2d: Percentiles
    compute: Percentiles
    d2h: Percentiles
    latency: Percentiles
    enqueue: Percentiles


class Latency(Artifact):
    """Milliseconds for one image through all engines of the deployment, one after another, by the host's clock.

    ``low`` and ``high`` bound ``p50`` (95 % bootstrap interval over rounds). ``stable`` is false where they are too far
    apart or the machine's speed drifted; such a figure is never a win. ``device`` is there for engines on a GPU, and
    ``raw`` where the samples were kept: rounds x repeats in an npy file, its path relative to the run directory.
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
    device: DeviceTimes | None = None
    raw: str | None = None


class DeploymentResult(Artifact):
    """One deployment in one precision. Where it could not be run, ``unsupported`` says why and the figures are null.

    ``cuts`` says for each group (or ``combined``) where its frozen layers end; ``flops`` are those of one image.
    ``average_precision`` is a detector's, in full. ``memory_mb`` is the process's part of ``memory``, ``energy_mj`` the
    figure of ``energy``; ``layers`` are those of each engine, where they were asked for;
    ``waterfall`` is the way from an image's file to its answer.
    """

    name: str
    precision: str
    runtime: str
    cuts: dict[str, str] = Field(default_factory=dict)
    flops: int | None = None
    engines: tuple[EngineFile, ...] = ()
    unsupported: str | None = None
    accuracy: Accuracy | None = None
    average_precision: AveragePrecision | None = None
    latency_ms: Latency | None = None
    throughput_ips: float | None = None
    memory_mb: float | None = None
    memory: Memory | None = None
    energy_mj: float | None = None
    energy: Energy | None = None
    layers: tuple[EngineLayers, ...] = ()
    waterfall: Waterfall | None = None

    @property
    def title(self) -> str:
        return f"{self.name} {self.precision}"


class Comparison(Artifact):
    """``a`` against ``b``, paired: image by image for accuracy (difference), round by round for latency (ratio a/b).

    The interval is one of 95 % for accuracy, of 99 % for latency. ``why_unstable``: the ratio itself changed.
    """

    a: str
    b: str
    metric: Literal["accuracy", "latency"]
    difference: float | None = None
    ratio: float | None = None
    low: float
    high: float
    why_unstable: str | None = None


class Evaluation(Artifact):
    """Accuracy of every deployment and precision on the test set: the part of `results.json` that `evaluate` writes."""

    schema_version: Literal[2] = 2
    metric: Metric = "top-1"
    images: int
    deployments: tuple[DeploymentResult, ...]
    comparisons: tuple[Comparison, ...]
    broken: tuple[BrokenFile, ...]


class Profile(Artifact):
    """Latency and memory of every deployment and precision: the part of `results.json` that `profile` writes.

    ``disturbances`` say what was amiss with the machine meanwhile, and the command that would help. ``estimates`` are
    of other devices, and never measured.
    """

    schema_version: Literal[2] = 2
    environment: dict[str, Any]
    deployments: tuple[DeploymentResult, ...]
    comparisons: tuple[Comparison, ...]
    disturbances: tuple[str, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    estimates: tuple[DeviceEstimate, ...] = ()


class Tree(Artifact):
    """A deployment with a cut for each of its heads, as the search saw it before anything was built.

    ``cuts`` maps a group (or ``combined``) to a layer's name, ``top``, ``images``, or ``truncated-LAYER``.
    ``relative_latency`` is a latency without a unit, to compare trees of one study by.
    """

    name: str
    deployment: str
    cuts: dict[str, str]
    val_accuracy: float
    flops: int
    parameters: int
    relative_latency: float
    measured: bool


class Verdict(Artifact):
    """What to ship, and why in plain sentences. ``deployment`` is null where nothing meets the budget."""

    deployment: str | None
    precision: str | None
    budget_met: bool
    stable: bool
    reasons: tuple[str, ...]


class Results(Artifact):
    """The whole answer of a study. ``accuracy_control``: that of the spelling of INT8 that was run, where the study has
    one.
    """

    schema_version: Literal[2] = 2
    study: str
    metric: Metric = "top-1"
    environment: dict[str, Any]
    data: dict[str, Any]
    training: dict[str, Any]
    budget: dict[str, float]
    deployments: tuple[DeploymentResult, ...]
    comparisons: tuple[Comparison, ...]
    trees: tuple[Tree, ...] = ()
    disturbances: tuple[str, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    accuracy_control: AccuracyControlResult | None = None
    verdict: Verdict
