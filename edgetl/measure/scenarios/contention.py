"""Several engines at once: how much each of them is slowed down by the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np

from edgetl.artifacts.scenarios import Alone, Concurrent, Contention
from edgetl.measure.scenarios.figures import Floats, over_rounds, why_unstable
from edgetl.measure.scenarios.issue import Part, side_by_side
from edgetl.measure.scenarios.rounds import Plan, Watch, interleave, warm_up

Parts = Mapping[str, Part]
Company = tuple[str, ...]
Times = dict[str, Floats]

_LEAST_INFERENCES = 5


def measure_contention(candidates: Mapping[str, Parts], plan: Plan, watch: Watch = bool) -> tuple[Concurrent, ...]:
    """Each part alone, each pair, and all at once, in interleaved rounds; ratios are taken round by round.

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
    measured = interleave(trials, plan, watch)
    return tuple(
        _summary(title, {company: measured[title, company] for company in companies(tuple(parts))})
        for title, parts in candidates.items()
    )


def companies(names: Company) -> tuple[Company, ...]:
    """Who runs together: each alone, every pair, and all."""
    alone = [(name,) for name in names]
    return tuple(dict.fromkeys([*alone, *combinations(names, 2), names]))


def _summary(title: str, measured: Mapping[Company, tuple[Times, ...]]) -> Concurrent:
    alone = {company[0]: _medians(rounds, company[0]) for company, rounds in measured.items() if len(company) == 1}
    ratios = {
        (name, tuple(other for other in company if other != name)): _medians(rounds, name) / alone[name]
        for company, rounds in measured.items()
        if len(company) > 1
        for name in company
    }
    doubts = {f"{name} beside {' and '.join(beside)}": why_unstable(one) for (name, beside), one in ratios.items()}
    why = next((f"{who}: {reason}" for who, reason in doubts.items() if reason is not None), None)
    return Concurrent(
        title=title,
        alone=tuple(Alone(name=name, p50_ms=float(np.median(medians))) for name, medians in alone.items()),
        contention=tuple(
            Contention(part=name, beside=beside, **over_rounds(one).model_dump())
            for (name, beside), one in ratios.items()
        ),
        rounds=len(next(iter(alone.values()))),
        stable=why is None,
        why_unstable=why,
    )


def _medians(rounds: tuple[Times, ...], part: str) -> Floats:
    """One for each round."""
    return np.array([float(np.median(times[part])) for times in rounds])
