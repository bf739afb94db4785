"""Checks of a candidate against each limit of the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgetl.config import BudgetSettings, Metric
from edgetl.report.evidence import Candidate, Interval, Pairs
from edgetl.report.wording import percent, points, significant

# Where the budget sets no accuracy limit, a smaller drop than this (one point) is taken for no drop.
TOLERATED_DROP = 0.01

# Accuracies are quotients: 0.93 - 0.92 is a hair more than 0.01.
_ROUNDING = 1e-9

# Nobody can follow the advice to add more test images than this.
_MOST_IMAGES = 10_000_000


@dataclass(frozen=True)
class LimitCheck:
    """One limit, and one candidate's figure for it.

    ``value`` is None where it was not measured; ``interval`` is None where the measurement has none. ``at_most`` is
    false for a limit from below. ``images`` is the number of test images behind a fraction, else None.
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
        """Return whether it limits what is lost against the most accurate candidate."""
        return self.unit == "points"

    @property
    def proven(self) -> bool:
        """Return whether the whole interval is on the side of the limit where the estimate is."""
        if self.interval is None:
            return False
        below = self.interval.high <= self.limit + _ROUNDING
        above = self.interval.low >= self.limit - _ROUNDING
        return below if self.met == self.at_most else above

    @property
    def excess(self) -> float:
        """Return how far the value is beyond the limit, as a fraction of it; infinite where it is unknown."""
        if self.met:
            return 0.0
        if self.value is None:
            return math.inf
        return abs(self.value - self.limit) / max(self.limit, TOLERATED_DROP)

    def written(self, value: float) -> str:
        """Return ``value`` in the unit of the limit, without the unit."""
        return {"points": points, "%": percent}.get(self.unit, significant)(value)

    def images_to_settle(self) -> int | None:
        """Return about how many more test images put the whole interval inside the limit; None where none would.

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
    candidate: Candidate, reference: Candidate, pairs: Pairs, budget: BudgetSettings, metric: Metric
) -> tuple[LimitCheck, ...]:
    """Return a check for every limit that is set, and for the accuracy drop where no accuracy limit is."""
    overall, latency, row, checks = candidate.accuracy.overall, candidate.latency, candidate.row, []
    if budget.max_accuracy_drop is not None or budget.min_accuracy is None:
        drop, paired = reference.overall_accuracy - candidate.overall_accuracy, pairs.accuracy(reference, candidate)
        if budget.max_accuracy_drop is not None:
            limit, met = budget.max_accuracy_drop, drop <= budget.max_accuracy_drop + _ROUNDING
        else:
            limit, met = TOLERATED_DROP, drop < TOLERATED_DROP or (paired is not None and paired.includes(0.0))
        checks.append(LimitCheck(f"{metric.words.name} drop", "points", drop, paired, limit, met, images=overall.n))
    if budget.min_accuracy is not None:
        interval, met = Interval(overall.value, overall.low, overall.high), overall.value >= budget.min_accuracy
        least = LimitCheck(metric.words.name, "%", overall.value, interval, budget.min_accuracy, met, False, overall.n)
        checks.append(least)
    energy, why, joules = row.energy, None, None
    if energy is not None:
        why = energy.reason
        if row.energy_mj is not None and energy.low is not None and energy.high is not None:
            joules = Interval(row.energy_mj, energy.low, energy.high)
    p50 = Interval(latency.p50, latency.low, latency.high)
    for what, unit, value, spread, most, unknown in (
        ("latency", "ms", latency.p50, p50, budget.max_latency_ms, None),
        ("memory", "MB", row.memory_mb, None, budget.max_memory_mb, None),
        ("energy", "mJ", row.energy_mj, joules, budget.max_energy_mj, why),
    ):
        if most is not None:
            # What was not measured does not meet a limit that is set on it.
            met = value is not None and value <= most
            checks.append(LimitCheck(what, unit, value, spread, most, met, why_unknown=unknown))
    return tuple(checks)


def accuracy_is_limited(budget: BudgetSettings) -> bool:
    return budget.max_accuracy_drop is not None or budget.min_accuracy is not None
