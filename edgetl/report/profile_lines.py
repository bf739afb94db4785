"""Lines on measured latencies, and the gate that fails where a candidate is proven slower."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from edgetl.artifacts.results import Comparison, DeploymentResult, Profile
from edgetl.errors import NotMetError
from edgetl.report.energy_and_memory import energy_line, memory_line
from edgetl.report.wording import printable


def profiles_json(profiles: Sequence[Profile]) -> str:
    """Return the profiles as a JSON list."""
    return json.dumps([profile.model_dump(mode="json") for profile in profiles], indent=1)


def profile_lines(profile: Profile) -> Iterator[str]:
    """Yield some lines for each candidate, a line for each pair and for each disturbance."""
    for row in profile.deployments:
        latency = row.latency_ms
        if latency is None:
            yield f"{title(row)}: not run: {printable(row.unsupported or 'no reason is known')}"
            continue
        mark = "" if latency.stable else f"  UNSTABLE: {latency.why_unstable}"
        interval = f"{latency.low:.3f} to {latency.high:.3f}"
        yield (
            f"{title(row)}: p50 {latency.p50:.3f} ms ({interval}), p90 {latency.p90:.3f}, p99 {latency.p99:.3f} ms, "
            f"{row.throughput_ips:.1f} images/s{mark}"
        )
        if (times := latency.device) is not None:
            yield (
                f"  GPU compute {times.compute.p50:.3f} ms, H2D {times.h2d.p50:.3f}, D2H {times.d2h.p50:.3f}, latency "
                f"{times.latency.p50:.3f} ms by CUDA events; enqueue {times.enqueue.p50:.3f} ms"
            )
        if row.energy is not None:
            yield f"  {energy_line(row.energy)}"
        if row.memory is not None:
            yield f"  {memory_line(row.memory)}"
    yield from (_pair(pair) for pair in profile.comparisons if pair.metric == "latency")
    yield from map(printable, profile.disturbances)


def device_of(profile: Profile) -> str:
    """Return the machine that a profile was made on, as its environment names it."""
    environment = profile.environment
    return str(environment.get("device") or environment.get("processor") or "unknown device")


def title(row: DeploymentResult) -> str:
    return printable(row.title)


def _pair(pair: Comparison) -> str:
    mark = "" if pair.why_unstable is None else f"  UNSTABLE: {pair.why_unstable}"
    return (
        f"{printable(pair.a)} takes {pair.ratio:.3f} times as long as {printable(pair.b)} "
        f"({pair.low:.3f} to {pair.high:.3f}){mark}"
    )


def check_gate(profile: Profile, limit: float | None, strict: bool, say: Callable[[str], object]) -> None:
    """Check that no candidate is proven slower than the last one by more than ``limit``, a fraction.

    Raises:
        NotMetError: one is; or, where ``strict``, it is undecided, or a latency is unstable.
    """
    unstable = [title(row) for row in profile.deployments if row.latency_ms is not None and not row.latency_ms.stable]
    if limit is not None:
        last = profile.deployments[-1].name
        for pair in profile.comparisons:
            if pair.b != last or pair.high <= 1.0 + limit:
                continue
            if pair.low > 1.0 + limit:
                raise NotMetError(f"{_pair(pair)}: slower by more than {limit:.1%}")
            text = f"undecided whether {printable(pair.a)} is slower by more than {limit:.1%}: {_pair(pair)}"
            if strict:
                raise NotMetError(f"{text}; measure longer with --seconds")
            say(text)
    # A regression is the worse news, so it is reported first.
    if strict and unstable:
        raise NotMetError(f"UNSTABLE: {', '.join(unstable)}; close other programs, or measure longer with --seconds")
