"""Measured latencies in lines of text, and whether they pass a gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from edgetl.artifacts.results import Comparison, DeploymentResult, DeviceTimes, Profile
from edgetl.errors import NotMetError
from edgetl.report.energy_and_memory import energy_line, memory_line
from edgetl.report.wording import printable


def profiles_json(profiles: Sequence[Profile]) -> str:
    """A list of them."""
    return json.dumps([profile.model_dump(mode="json") for profile in profiles], indent=1)


def profile_lines(profile: Profile) -> Iterator[str]:
    """Some lines for each candidate, a line for each pair and for each disturbance."""
    for row in profile.deployments:
        yield from _row_lines(row)
    yield from (_pair(pair) for pair in profile.comparisons if pair.metric == "latency")
    yield from map(printable, profile.disturbances)


def device_of(profile: Profile) -> str:
    """The machine that a profile was made on, as its environment names it."""
    environment = profile.environment
    return str(environment.get("device") or environment.get("processor") or "unknown device")


def title(row: DeploymentResult) -> str:
    return printable(row.name if row.precision == "as in the file" else row.title)


def _row_lines(row: DeploymentResult) -> Iterator[str]:
    latency = row.latency_ms
    if latency is None:
        yield f"{title(row)}: not run: {printable(row.unsupported or 'no reason is known')}"
        return
    mark = "" if latency.stable else f"  UNSTABLE: {latency.why_unstable}"
    interval = f"{latency.low:.3f} to {latency.high:.3f}"
    yield (
        f"{title(row)}: p50 {latency.p50:.3f} ms ({interval}), p90 {latency.p90:.3f}, p99 {latency.p99:.3f} ms, "
        f"{row.throughput_ips:.1f} images/s{mark}"
    )
    if latency.device is not None:
        yield f"  {_device(latency.device)}"
    if row.energy is not None:
        yield f"  {energy_line(row.energy)}"
    if row.memory is not None:
        yield f"  {memory_line(row.memory)}"


def _device(times: DeviceTimes) -> str:
    return (
        f"GPU compute {times.compute.p50:.3f} ms, H2D {times.h2d.p50:.3f}, D2H {times.d2h.p50:.3f}, latency "
        f"{times.latency.p50:.3f} ms by CUDA events; enqueue {times.enqueue.p50:.3f} ms"
    )


def _pair(pair: Comparison) -> str:
    mark = "" if pair.why_unstable is None else f"  UNSTABLE: {pair.why_unstable}"
    return (
        f"{printable(pair.a)} takes {pair.ratio:.3f} times as long as {printable(pair.b)} "
        f"({pair.low:.3f} to {pair.high:.3f}){mark}"
    )


def check_gate(profile: Profile, limit: float | None, strict: bool, say: Callable[[str], object]) -> None:
    """Whether the candidates pass: none proven slower than the last one by more than ``limit``, a share.

    Raises:
        NotMetError: one is; or, where ``strict``, it cannot be told, or a latency is unstable.
    """
    unstable = [title(row) for row in profile.deployments if row.latency_ms is not None and not row.latency_ms.stable]
    if limit is not None:
        last = profile.deployments[-1].name
        for pair in profile.comparisons:
            if pair.b == last:
                _judge_pair(pair, 1.0 + limit, strict, say)
    if strict and unstable:
        raise NotMetError(f"UNSTABLE: {', '.join(unstable)}; close other programs, or measure longer with --seconds")


def _judge_pair(pair: Comparison, limit: float, strict: bool, say: Callable[[str], object]) -> None:
    if pair.low > limit:
        raise NotMetError(f"{_pair(pair)}: slower by more than {limit - 1:.1%}")
    if pair.high <= limit:
        return
    text = f"whether {printable(pair.a)} is slower by more than {limit - 1:.1%} cannot be told: {_pair(pair)}"
    if strict:
        raise NotMetError(f"{text}; measure longer with --seconds")
    say(text)
