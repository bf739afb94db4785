"""How a candidate stands to each limit of the budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgetl.config import BudgetSettings
from edgetl.report.evidence import Candidate, Interval, Pairs
from edgetl.report.metric_words import MetricWords
from edgetl.report.wording import percent, points, significant

TOLERATED_DROP = 0.01
"""Where the budget sets no accuracy limit, a smaller drop than this (one point) is taken for no drop."""

# Accuracies are quotients: 0.93 - 0.92 is a hair more than 0.01.
_ROUNDING = 1e-9

# More test images than this are not a piece of advice.
_MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class LimitCheck:
    """One limit, and one candidate's figure for it.

    ``value`` is None where it was not measured; ``interval`` is None where the measurement has none. ``at_most`` is
    false for a limit from below. ``images`` is the number of test images behind a share, else None.
    ``why_unknown`` is the machine's reason for having no figure.
    """

    what: str
    unit: str
    value: float | None
    interval: Interval | None
    limit: float
    met: bool
    at_most: bool = True
    images: int | None = None
    why_unknown: str | None = None

    @property
    def is_drop(self) -> bool:
        """It bounds what is lost against the most accurate candidate."""
        return self.unit == "points"

    @property
    def proven(self) -> bool:
        """The whole interval is on the side of the limit where the estimate is."""
        if self.interval is None:
            return False
        below = self.interval.high <= self.limit + _ROUNDING
        above = self.interval.low >= self.limit - _ROUNDING
        return below if self.met == self.at_most else above

    @property
    def excess(self) -> float:
        """How far beyond the limit, as a share of it; infinite where the figure is unknown."""
        if self.met:
            return 0.0
        if self.value is None:
            return math.inf
        return abs(self.value - self.limit) / max(self.limit, TOLERATED_DROP)

    def written(self, value: float) -> str:
        """``value`` in the unit of the limit, without the unit."""
        return {"points": points, "%": percent}.get(self.unit, significant)(value)

    def images_to_settle(self) -> int | None:
        """About how many more test images would put the whole interval inside the limit; None where none would.

        An interval's half width goes with 1 / sqrt(n) (normal approximation), so its end reaches the limit at
        n * (half width / distance of the estimate from the limit)^2 images.
        """
        if self.images is None or self.interval is None or self.value is None:
            return None
        half_width = self.interval.high - self.value if self.at_most else self.value - self.interval.low
        margin = abs(self.limit - self.value)
        if margin <= _ROUNDING:
            return None
        more = self.images * ((half_width / margin) ** 2 - 1.0)
        return math.ceil(float(f"{more:.2g}")) if 0.0 < more <= _MOST_IMAGES else None


def standings(
    candidate: Candidate, reference: Candidate, pairs: Pairs, budget: BudgetSettings, terms: MetricWords
) -> tuple[LimitCheck, ...]:
    """Every limit that is set, and the accuracy drop where no accuracy limit is."""
    return (*_accuracy(candidate, reference, pairs, budget, terms), *_costs(candidate, budget))


def accuracy_is_limited(budget: BudgetSettings) -> bool:
    return budget.max_accuracy_drop is not None or budget.min_accuracy is not None


def _accuracy(
    candidate: Candidate, reference: Candidate, pairs: Pairs, budget: BudgetSettings, terms: MetricWords
) -> Iterator[LimitCheck]:
    overall = candidate.accuracy.overall
    if budget.max_accuracy_drop is not None or budget.min_accuracy is None:
        drop, paired = reference.overall_accuracy - candidate.overall_accuracy, pairs.accuracy(reference, candidate)
        if budget.max_accuracy_drop is not None:
            limit, met = budget.max_accuracy_drop, drop <= budget.max_accuracy_drop + _ROUNDING
        else:
            limit, met = TOLERATED_DROP, drop < TOLERATED_DROP or (paired is not None and paired.includes(0.0))
        yield LimitCheck(f"{terms.name} drop", "points", drop, paired, limit, met, images=overall.n)
    if budget.min_accuracy is not None:
        interval, met = Interval(overall.value, overall.low, overall.high), overall.value >= budget.min_accuracy
        yield LimitCheck(terms.name, "%", overall.value, interval, budget.min_accuracy, met, False, overall.n)


def _costs(candidate: Candidate, budget: BudgetSettings) -> Iterator[LimitCheck]:
    latency, row = candidate.latency, candidate.row
    interval = Interval(latency.p50, latency.low, latency.high)
    energy = row.energy
    joules = None
    if row.energy_mj is not None and energy is not None and energy.low is not None and energy.high is not None:
        joules = Interval(row.energy_mj, energy.low, energy.high)
    for what, unit, value, spread, limit in (
        ("latency", "ms", latency.p50, interval, budget.max_latency_ms),
        ("memory", "MB", row.memory_mb, None, budget.max_memory_mb),
        ("energy", "mJ", row.energy_mj, joules, budget.max_energy_mj),
    ):
        if limit is not None:
            why = None if what != "energy" or energy is None else energy.reason
            yield LimitCheck(what, unit, value, spread, limit, value is not None and value <= limit, why_unknown=why)
