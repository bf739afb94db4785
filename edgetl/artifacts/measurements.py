"""Measurements of deployments: accuracy, latency of layers and end to end, memory, energy, scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from edgetl.artifacts.files import Artifact


@dataclass(frozen=True)
class KernelCost:
    """One launch on a device: a node of a graph with the pointwise nodes fused into it, for one image.

    ``bits`` is the width of its operands; ``bytes`` what it reads from and writes to memory, weights included.
    """

    flops: int
    bits: int
    bytes: float


class DeviceEstimate(Artifact):
    """The estimated latency of one image through all engines of a deployment, on a device in one of its power modes.

    ``low`` and ``high`` (milliseconds) bound the latency as `docs/measuring.md` explains; ``middle`` is the calibrated
    model's own figure. ``memory_mb`` is the size of weights and activations; system and runtime need more.
    ``unverified`` names figures of the device whose source could not be read. ``left_out`` are operators whose work
    depends on the image; neither they nor what follows them is counted.
    """

    name: str
    precision: str
    device: str
    mode: str
    low: float
    middle: float
    high: float
    memory_mb: float
    device_memory_mb: float
    unverified: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether weights and activations are smaller than the whole memory of the device."""
        return self.memory_mb <= self.device_memory_mb


class RailPower(Artifact):
    """A supply rail, or a part that counts its own energy: watts when idle and during inferences."""

    name: str
    idle_w: float
    active_w: float


class Energy(Artifact):
    """Millijoules of one inference above the idle machine's, with the 95 % interval over rounds.

    ``total_of`` are the rails that add up to the whole; the others are parts of them. Where the machine cannot measure
    energy, ``reason`` says why, and the figures are null.
    """

    mj: float | None = None
    low: float | None = None
    high: float | None = None
    source: str | None = None
    total_of: tuple[str, ...] = ()
    idle_w: float | None = None
    active_w: float | None = None
    rails: tuple[RailPower, ...] = ()
    inferences: int = 0
    rounds: int = 0
    reason: str | None = None


class AccuracyEstimate(Artifact):
    """An accuracy or mean average precision on ``n`` images, with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


class LayerTime(Artifact):
    """The time of a layer of an engine. ``node`` is the ONNX node that it came from, null where the runtime added it.

    ``part`` is ``trunk`` for layers that every output needs, else the outputs that need it.
    """

    layer: str
    node: str | None
    operator: str
    part: str | None
    ms: float
    fraction: float


class PartTime(Artifact):
    """The time of several layers: of a block by the prefix of its nodes' names, of the trunk, or of a head."""

    name: str
    layers: int
    ms: float
    fraction: float


class EngineLayers(Artifact):
    """The layers of an engine in order, each with the median over ``runs``; fractions are those of ``sum_ms``.

    ``profiled_ms`` is the whole inference with the profiler on, ``latency_ms`` without it: their difference is the
    profiler's own cost. The difference of ``sum_ms`` and ``profiled_ms`` is spent between layers.
    """

    engine: str
    source: str
    runs: int
    sum_ms: float
    profiled_ms: float
    latency_ms: float | None = None
    layers: tuple[LayerTime, ...]
    blocks: tuple[PartTime, ...] = ()
    parts: tuple[PartTime, ...] = ()


class Memory(Artifact):
    """By how many MiB memory grows when engines are loaded and each runs once, in a process of its own.

    ``process_mb`` is resident memory at its peak. ``device_loaded_mb`` is what loading takes on the GPU, ``device_mb``
    what is held there after running, ``device_scratch_mb`` what the runtime says its execution contexts need.
    ``system_mb`` is the decrease of the machine's available memory, other programs included: where the GPU shares the
    processor's memory (``shared``), its part is in that figure and not in ``process_mb``. ``reason`` says why a GPU's
    figures are missing.
    """

    process_mb: float | None = None
    system_mb: float | None = None
    device_loaded_mb: float | None = None
    device_mb: float | None = None
    device_scratch_mb: float | None = None
    shared: bool | None = None
    reason: str | None = None


ScenarioName = Literal["single-stream", "multi-stream", "offline", "cadence", "concurrent"]


class FigureInterval(Artifact):
    """A figure with its 95 % bootstrap interval over rounds."""

    value: float
    low: float
    high: float


class MissFraction(FigureInterval):
    """The fraction of ``n`` inferences that ended after their deadline."""

    n: int


class _Scenario(Artifact):
    """The fields of all scenarios. ``title`` names the candidate or files; unless ``stable``, figures prove nothing."""

    title: str
    rounds: int
    stable: bool
    why_unstable: str | None = None


class QueryResult(_Scenario):
    """Latency of queries of ``query_size`` images, one after another (MLPerf Inference: p90 of one, p99 of eight).

    ``batch`` is the number of images in an inference: the whole query, or 1 where the engines take no more.
    """

    scenario: Literal["single-stream", "multi-stream"]
    query_size: int
    batch: int
    percentile: int
    latency_ms: FigureInterval
    queries: int


class OfflineResult(_Scenario):
    """Images per second when all are available from the start, by ``streams`` that each run one batch at a time."""

    scenario: Literal["offline"] = "offline"
    batch: int
    streams: int
    throughput_ips: FigureInterval


class CadencePart(Artifact):
    """An engine at its own rate.

    The response time of an inference begins when it is due and not when it starts. Its deadline is when the next one is
    due; lateness is the time from there to its end. ``service_ms`` is the median of the execution alone.
    """

    name: str
    rate_hz: float
    service_ms: float
    missed: MissFraction
    response_p50_ms: float
    response_p99_ms: FigureInterval
    response_worst_ms: float
    lateness_worst_ms: float


class CadenceResult(_Scenario):
    """Periodic inferences on one device, which runs each to its end, the earliest deadline first.

    ``utilisation`` is the fraction of time in which the device is busy; ``longest_queue`` the most inferences that were
    due at once. Where the device cannot keep up, ``unmet`` says so, ``utilisation`` is what would be needed, and there
    are no other figures.
    """

    scenario: Literal["cadence"] = "cadence"
    utilisation: FigureInterval
    unmet: str | None = None
    missed: MissFraction | None = None
    parts: tuple[CadencePart, ...] = ()
    longest_queue: int | None = None
    seconds: float


class IsolatedLatency(Artifact):
    """The median time of an inference while no other engine runs."""

    name: str
    p50_ms: float


class Contention(FigureInterval):
    """The factor by which ``workload`` takes longer while ``concurrent_with`` run without a pause."""

    workload: str
    concurrent_with: tuple[str, ...]


class ConcurrentResult(_Scenario):
    """Several engines at once: every pair, and all together where there are more than two."""

    scenario: Literal["concurrent"] = "concurrent"
    alone: tuple[IsolatedLatency, ...]
    contention: tuple[Contention, ...]


Scenario = Annotated[QueryResult | OfflineResult | CadenceResult | ConcurrentResult, Field(discriminator="scenario")]


class StepTime(Artifact):
    """A step from an image's file to its result: median milliseconds for one image, and its fraction of all time."""

    name: str
    ms: float
    fraction: float


class Waterfall(Artifact):
    """The time from image files to results, step by step, over ``samples`` passes of ``images`` different images.

    ``total_ms`` is the median of a whole pass. Medians of steps need not add up to it; fractions add up to one.
    """

    images: int
    samples: int
    total_ms: float
    steps: tuple[StepTime, ...]

    @property
    def not_inference(self) -> float:
        """The fraction of time that is not inference."""
        return 1.0 - sum(step.fraction for step in self.steps if step.name == "inference")
