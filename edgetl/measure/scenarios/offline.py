"""Offline: throughput where all images are there from the start (as MLPerf's offline)."""

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
    """Workloads that go through a deployment's images side by side; each inference takes ``batch`` of them."""

    parts: Sequence[ConcurrentWorkload]
    batch: int = 1


def measure_offline(
    candidates: Mapping[str, Streams], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> tuple[OfflineResult, ...]:
    """Return images per second of each candidate, measured in interleaved rounds."""
    trials = {}
    for title, one in candidates.items():
        for part in one.parts:
            warm_up(part.call, plan)
        parts = {str(number): part for number, part in enumerate(one.parts)}
        trials[title] = partial(side_by_side, parts, plan.slice_ms / 1e3)
    results = []
    for title, rounds in interleave(trials, plan, on_progress).items():
        batch = candidates[title].batch
        # Each stream is busy without a pause, so its rate is inferences by the sum of their times; rates add up.
        per_round = [sum(batch * len(own) / (float(own.sum()) / 1e3) for own in times.values()) for times in rounds]
        why = why_unstable(per_round)
        results.append(
            OfflineResult(
                title=title,
                batch=batch,
                streams=len(candidates[title].parts),
                throughput_ips=over_rounds(per_round),
                rounds=len(per_round),
                stable=why is None,
                why_unstable=why,
            )
        )
    return tuple(results)
