"""All images are there from the start: throughput (MLPerf's offline)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from edgetl.artifacts.measurements import OfflineResult
from edgetl.measure.scenarios.figures import over_rounds, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up
from edgetl.measure.scenarios.issue import ConcurrentWorkload, side_by_side


@dataclass(frozen=True)
class Streams:
    """What works side by side through the images of a deployment; each inference takes ``batch`` of them."""

    parts: Sequence[ConcurrentWorkload]
    batch: int = 1


def measure_offline(
    candidates: Mapping[str, Streams], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> tuple[OfflineResult, ...]:
    """Images per second, candidate by candidate in interleaved rounds."""
    for one in candidates.values():
        for part in one.parts:
            warm_up(part.call, plan)
    trials = {title: partial(_throughput, one, plan) for title, one in candidates.items()}
    measured = interleave(trials, plan, on_progress)
    return tuple(_summary(title, candidates[title], per_round) for title, per_round in measured.items())


def _throughput(streams: Streams, plan: ScenarioPlan) -> float:
    """Each stream is busy without a pause, so its rate is inferences by the sum of their times; rates add up."""
    parts = {str(number): part for number, part in enumerate(streams.parts)}
    times = side_by_side(parts, plan.slice_ms / 1e3).values()
    return sum(streams.batch * len(own) / (float(own.sum()) / 1e3) for own in times)


def _summary(title: str, streams: Streams, per_round: tuple[float, ...]) -> OfflineResult:
    why = why_unstable(per_round)
    return OfflineResult(
        title=title,
        batch=streams.batch,
        streams=len(streams.parts),
        throughput_ips=over_rounds(per_round),
        rounds=len(per_round),
        stable=why is None,
        why_unstable=why,
    )
