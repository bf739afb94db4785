"""Concurrent engines: how much each of them is slowed down by the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.measurements import ConcurrentResult, Contention, IsolatedLatency
from edgetl.measure.scenarios.figures import over_rounds, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up
from edgetl.measure.scenarios.issue import ConcurrentWorkload, side_by_side

ConcurrentWorkloads = Mapping[str, ConcurrentWorkload]
ConcurrentSet = tuple[str, ...]
Times = dict[str, Float64Array]

_LEAST_INFERENCES = 5


def measure_contention(
    candidates: Mapping[str, ConcurrentWorkloads], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> tuple[ConcurrentResult, ...]:
    """Measure each part alone, each pair, and all at once, in interleaved rounds; ratios are taken round by round.

    Args:
        candidates: each has two parts or more.
    """
    trials = {}
    for title, parts in candidates.items():
        for part in parts.values():
            warm_up(part.call, plan)
        for company in companies(tuple(parts)):
            together = {name: parts[name] for name in company}
            trials[title, company] = partial(side_by_side, together, plan.slice_ms / 1e3, _LEAST_INFERENCES)
    measured = interleave(trials, plan, on_progress)
    return tuple(
        _summary(title, {company: measured[title, company] for company in companies(tuple(parts))})
        for title, parts in candidates.items()
    )


def companies(names: ConcurrentSet) -> tuple[ConcurrentSet, ...]:
    """Return which parts run together: each alone, every pair, and all."""
    alone = [(name,) for name in names]
    return tuple(dict.fromkeys([*alone, *combinations(names, 2), names]))


def _summary(title: str, measured: Mapping[ConcurrentSet, tuple[Times, ...]]) -> ConcurrentResult:
    alone = {company[0]: _medians(rounds, company[0]) for company, rounds in measured.items() if len(company) == 1}
    ratios = {
        (name, tuple(other for other in company if other != name)): _medians(rounds, name) / alone[name]
        for company, rounds in measured.items()
        if len(company) > 1
        for name in company
    }
    doubts = {f"{name} beside {' and '.join(beside)}": why_unstable(one) for (name, beside), one in ratios.items()}
    why = next((f"{who}: {reason}" for who, reason in doubts.items() if reason is not None), None)
    return ConcurrentResult(
        title=title,
        alone=tuple(IsolatedLatency(name=name, p50_ms=float(np.median(medians))) for name, medians in alone.items()),
        contention=tuple(
            Contention(workload=name, concurrent_with=beside, **over_rounds(one).model_dump())
            for (name, beside), one in ratios.items()
        ),
        rounds=len(next(iter(alone.values()))),
        stable=why is None,
        why_unstable=why,
    )


def _medians(rounds: tuple[Times, ...], part: str) -> Float64Array:
    return np.array([float(np.median(times[part])) for times in rounds])
