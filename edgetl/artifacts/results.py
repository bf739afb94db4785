"""`results.json`, which other programs read: `schema_version` comes first and changes with the shape."""

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

# The precision of a plain file, which has its own in each layer.
AS_IN_FILE = "as in the file"


class EngineFile(Artifact):
    """An engine of a deployment. ``file`` is relative to the run directory."""

    file: str
    sha256: str
    bytes: int


class Accuracy(Artifact):
    """A study's metric on the test images.

    In ``groups`` all labels compete; in ``masked`` only those of the image's own group.

    JSON is flat: ``overall`` and each group by name are estimates; a group's holds its ``masked`` one, which detection
    lacks.
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
        if not isinstance(content, dict):
            return content
        # In flat JSON a group may be called "groups", and is then an estimate, not the field of that name.
        groups = content.get("groups")
        if isinstance(groups, dict) and not isinstance(groups.get("value"), int | float):
            return content
        groups = {name: estimate for name, estimate in content.items() if name != "overall"}
        if not all(isinstance(estimate, dict) for estimate in groups.values()):
            raise ValueError("every group needs value, low, high and n")
        masked = {name: estimate["masked"] for name, estimate in groups.items() if "masked" in estimate}
        groups = {name: {k: v for k, v in estimate.items() if k != "masked"} for name, estimate in groups.items()}
        return {"overall": content.get("overall"), "groups": groups, "masked": masked}


class MeanAveragePrecision(Artifact):
    """Mean average precision of some labels: at IoU 0.5, and the mean over IoU 0.50, 0.55, ... 0.95."""

    ap50: AccuracyEstimate
    ap: AccuracyEstimate


class LabelPrecision(Artifact):
    """Average precision of a label and its number of test objects; null where it has none."""

    objects: int
    ap50: AccuracyEstimate | None = None
    ap: AccuracyEstimate | None = None


class AveragePrecision(Artifact):
    """Average precision of a detector: overall, by group and by label. A group without test objects is left out."""

    overall: MeanAveragePrecision
    groups: dict[str, MeanAveragePrecision]
    labels: dict[str, LabelPrecision]


class Percentiles(Artifact):
    """Percentiles and mean of a time, in milliseconds."""

    p50: float
    p90: float
    p99: float
    mean: float


class DeviceTimes(Artifact):
    """The times of an inference by CUDA events, as trtexec defines them: ``latency`` = ``h2d`` + ``compute`` + ``d2h``.

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
    apart or the machine's speed drifted; such a figure proves nothing. Engines on a GPU have ``device``. ``raw`` is the
    npy file of the samples, rounds x repeats, relative to the run directory, where they were kept.
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
    """One deployment in one precision. Where it cannot run, ``unsupported`` says why, and the figures are null.

    ``cuts`` maps each group (or ``combined``) to its cut; ``flops`` are those of one image. ``average_precision`` is a
    detector's in full. ``memory_mb`` is the process's part of ``memory``, ``energy_mj`` the figure of ``energy``.
    ``layers`` are those of each engine, where requested; ``waterfall`` is the time from an image's file to its result.
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
        return self.name if self.precision == AS_IN_FILE else f"{self.name} {self.precision}"


class Comparison(Artifact):
    """A paired comparison: accuracy image by image (difference a - b), latency round by round (ratio a/b).

    The interval has 95 % for accuracy, 99 % for latency. ``why_unstable`` is there where the ratio itself drifted.
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
    metric: str = "top-1"
    images: int
    deployments: tuple[DeploymentResult, ...]
    comparisons: tuple[Comparison, ...]
    broken: tuple[BrokenFile, ...]


class Profile(Artifact):
    """Latency and memory of every deployment and precision: the part of `results.json` that `profile` writes.

    ``disturbances`` say what disturbed the measuring, and the command that helps. ``estimates`` are for other devices
    and not measured.
    """

    schema_version: Literal[2] = 2
    environment: dict[str, Any]
    deployments: tuple[DeploymentResult, ...]
    comparisons: tuple[Comparison, ...]
    disturbances: tuple[str, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    estimates: tuple[DeviceEstimate, ...] = ()


class Tree(Artifact):
    """A deployment with a cut for each of its heads, as the search estimates it before anything is built.

    ``cuts`` maps a group (or ``combined``) to a layer's name, ``top``, ``images``, or ``truncated-LAYER``.
    ``relative_latency`` has no unit; it compares trees of one study.
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
    """The candidate to ship, with reasons as sentences. ``deployment`` is null where nothing meets the budget."""

    deployment: str | None
    precision: str | None
    budget_met: bool
    stable: bool
    reasons: tuple[str, ...]


class Results(Artifact):
    """All results of a study. ``accuracy_control`` is that of the QDQ format that was run, where the study has one."""

    schema_version: Literal[2] = 2
    study: str
    metric: str = "top-1"
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
