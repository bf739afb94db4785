"""What is measured of deployments: accuracy, latency layer by layer and end to end, memory, energy, scenarios."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetl.artifacts.files import Artifact


class DeviceEstimate(Artifact):
    """One image through all engines of a deployment, one after another, on a device in one of its power modes.

    ``low`` and ``high`` (milliseconds) bound the latency as `docs/measuring.md` tells; ``middle`` is the calibrated
    model's own figure. ``memory_mb`` is what weights and activations take; the system and the runtime need more.
    ``unverified`` names the figures of the device whose source could not be read. ``left_out`` are operators whose work
    depends on what is to be seen; they and what follows them are not counted.
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
    """A supply rail, or a part that counts its own energy: watts without and with the inferences running."""

    name: str
    idle_w: float
    active_w: float


class Energy(Artifact):
    """Millijoules of one inference over what the idle machine takes, with the 95 % interval over rounds.

    ``total_of`` are the rails that add up to the whole; the others are parts of them. Where the machine cannot tell,
    ``reason`` says why and the figures are null.
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
    """A share, or a mean average precision, of ``n`` images with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    n: int


class LayerTime(Artifact):
    """A layer of an engine. ``node`` is the ONNX node that it came from, null where the runtime put it in by itself.

    ``part`` is ``trunk`` for what every output needs, else the outputs that need it.
    """

    layer: str
    node: str | None
    operator: str
    part: str | None
    ms: float
    fraction: float


class PartTime(Artifact):
    """Some layers together: a block by the prefix of its nodes' names, the trunk, a head."""

    name: str
    layers: int
    ms: float
    fraction: float


class EngineLayers(Artifact):
    """The layers of an engine, in their order, each with the median over ``runs``; shares are those of ``sum_ms``.

    ``profiled_ms`` is the whole inference while the profiler looked on, ``latency_ms`` the one without it: what is
    between them is the profiler's own cost, what is between ``sum_ms`` and ``profiled_ms`` is spent between layers.
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
    """Growth from before the engines are loaded, in a process of its own that runs each once, in MiB.

    ``process_mb`` is resident memory at its peak. ``device_loaded_mb`` is what loading takes on the GPU, ``device_mb``
    what is held there after running, ``device_scratch_mb`` what the runtime itself says its execution contexts need.
    ``system_mb`` is by how much less the whole machine has available, other programs included: where the GPU shares the
    processor's memory (``shared``), what it takes is in that figure and not in ``process_mb``. ``reason`` says why
    figures of a GPU are missing.
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
    """The share of ``n`` inferences that were finished after their deadline."""

    n: int


class _Scenario(Artifact):
    """``title`` is the deployment and its precision, or the files. Figures that are not ``stable`` prove nothing."""

    title: str
    rounds: int
    stable: bool
    why_unstable: str | None = None


class QueryResult(_Scenario):
    """One query after the other, each of ``query_size`` images (MLPerf Inference: p90 of one, p99 of eight).

    ``batch`` is how many of its images an inference takes: all of them, or 1 where the engines take no more.
    """

    scenario: Literal["single-stream", "multi-stream"]
    query_size: int
    batch: int
    percentile: int
    latency_ms: FigureInterval
    queries: int


class OfflineResult(_Scenario):
    """Images per second where all of them are there from the start, by ``streams`` that each run batches one by one."""

    scenario: Literal["offline"] = "offline"
    batch: int
    streams: int
    throughput_ips: FigureInterval


class CadencePart(Artifact):
    """An engine at its own rate.

    Response is from when an inference was due to its end, whenever it did begin; its deadline is when the next one is
    due, and lateness how long after that the end was. ``service_ms`` is the median of the execution alone.
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

    ``utilisation`` is the share of the time in which the device is busy; ``longest_queue`` the most inferences that
    were due and not done at once. Where the device cannot keep up, ``unmet`` says so, ``utilisation`` is what would be
    needed, and there are no other figures.
    """

    scenario: Literal["cadence"] = "cadence"
    utilisation: FigureInterval
    unmet: str | None = None
    missed: MissFraction | None = None
    parts: tuple[CadencePart, ...] = ()
    longest_queue: int | None = None
    seconds: float


class IsolatedLatency(Artifact):
    """The median time of an inference of an engine that has the device to itself."""

    name: str
    p50_ms: float


class Contention(FigureInterval):
    """How many times as long ``workload`` takes while ``concurrent_with`` run without a pause."""

    workload: str
    concurrent_with: tuple[str, ...]


class ConcurrentResult(_Scenario):
    """Several engines at once: every pair, and, of more than two, all together."""

    scenario: Literal["concurrent"] = "concurrent"
    alone: tuple[IsolatedLatency, ...]
    contention: tuple[Contention, ...]


Scenario = Annotated[QueryResult | OfflineResult | CadenceResult | ConcurrentResult, Field(discriminator="scenario")]


class StepTime(Artifact):
    """A step of the way, in milliseconds for one image: the median, and its share of all the time that was taken."""

    name: str
    ms: float
    fraction: float


class Waterfall(Artifact):
    """The steps in their order, over ``samples`` passes of ``images`` different images.

    ``total_ms`` is the median of a whole pass; medians of steps need not add up to it, shares do add up to one.
    """

    images: int
    samples: int
    total_ms: float
    steps: tuple[StepTime, ...]

    @property
    def not_inference(self) -> float:
        """The share of all that is not inference."""
        return 1.0 - sum(step.fraction for step in self.steps if step.name == "inference")
