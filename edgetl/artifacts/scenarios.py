"""What a deployment does under a load: the field ``scenarios`` of `results.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetl.artifacts.files import Artifact

ScenarioName = Literal["single-stream", "multi-stream", "offline", "cadence", "concurrent"]


class Interval(Artifact):
    """A figure with its 95 % bootstrap interval over rounds."""

    value: float
    low: float
    high: float


class MissShare(Interval):
    """The share of ``n`` inferences that were finished after their deadline."""

    n: int


class _Scenario(Artifact):
    """``title`` is the deployment and its precision, or the files. Figures that are not ``stable`` prove nothing."""

    title: str
    rounds: int
    stable: bool
    why_unstable: str | None = None


class Queries(_Scenario):
    """One query after the other, each of ``query_size`` images (MLPerf Inference: p90 of one, p99 of eight).

    ``batch`` is how many of its images an inference takes: all of them, or 1 where the engines take no more.
    """

    scenario: Literal["single-stream", "multi-stream"]
    query_size: int
    batch: int
    percentile: int
    latency_ms: Interval
    queries: int


class Offline(_Scenario):
    """Images per second where all of them are there from the start, by ``streams`` that each run batches one by one."""

    scenario: Literal["offline"] = "offline"
    batch: int
    streams: int
    throughput_ips: Interval


class CadencePart(Artifact):
    """An engine at its own rate.

    Response is from when an inference was due to its end, whenever it did begin; its deadline is when the next one is
    due, and lateness how long after that the end was. ``service_ms`` is the median of the execution alone.
    """

    name: str
    rate_hz: float
    service_ms: float
    missed: MissShare
    response_p50_ms: float
    response_p99_ms: Interval
    response_worst_ms: float
    lateness_worst_ms: float


class Cadence(_Scenario):
    """Periodic inferences on one device, which runs each to its end, the earliest deadline first.

    ``utilisation`` is the share of the time in which the device is busy; ``longest_queue`` the most inferences that
    were due and not done at once. Where the device cannot keep up, ``unmet`` says so, ``utilisation`` is what would be
    needed, and there are no other figures.
    """

    scenario: Literal["cadence"] = "cadence"
    utilisation: Interval
    unmet: str | None = None
    missed: MissShare | None = None
    parts: tuple[CadencePart, ...] = ()
    longest_queue: int | None = None
    seconds: float


class Alone(Artifact):
    """The median time of an inference of an engine that has the device to itself."""

    name: str
    p50_ms: float


class Contention(Interval):
    """How many times as long ``part`` takes while ``beside`` run without a pause."""

    part: str
    beside: tuple[str, ...]


class Concurrent(_Scenario):
    """Several engines at once: every pair, and, of more than two, all together."""

    scenario: Literal["concurrent"] = "concurrent"
    alone: tuple[Alone, ...]
    contention: tuple[Contention, ...]


Scenario = Annotated[Queries | Offline | Cadence | Concurrent, Field(discriminator="scenario")]
