"""Whether a series of measurements can be trusted: its interval, its drift, and jumps in it."""

from __future__ import annotations

import math

import numpy as np

from edgetl.arrays import Float64Array

# Fractions of the median: as large as the smallest gain in speed that a verdict prefers a deployment for.
_WIDEST_INTERVAL = 0.05
_MOST_DRIFT = 0.05
_CHANCE_OF_A_JUMP = 1e-3
# The normal approximation of the rank-sum test needs some values, and a few on either side.
_FEWEST_ROUNDS = 12
_SHORTEST_SIDE = 3


def why_unstable(per_round: Float64Array, interval: tuple[float, float], warm: bool = True) -> str | None:
    """Return why the median of a series is not to be trusted; None where it is.

    Args:
        per_round: one value per round, in the order of time.
        interval: of the median.
        warm: whether warming up came to an end.
    """
    if not warm:
        return "it was still becoming faster when measuring began"
    place = change_point(per_round)
    if place is not None:
        step = float(np.median(per_round[place:]) / np.median(per_round[:place])) - 1.0
        # A series of many rounds proves changes that are too small to matter.
        if abs(step) > _MOST_DRIFT:
            return f"it changed by {step:+.0%} after {place} of {len(per_round)} rounds"
    width = (interval[1] - interval[0]) / float(np.median(per_round))
    if width > _WIDEST_INTERVAL:
        return f"the interval of the median is {width:.0%} of it, more than {_WIDEST_INTERVAL:.0%}"
    third = max(1, len(per_round) // 3)
    drift = float(np.median(per_round[-third:]) / np.median(per_round[:third])) - 1.0
    if abs(drift) > _MOST_DRIFT:
        return f"it drifted by {drift:+.0%} from the first third of the rounds to the last"
    return None


def change_point(values: Float64Array) -> int | None:
    """Return how many values lie before the most likely change of level; None where chance explains it.

    The place where a rank-sum test of the two sides is surest (Hawkins & Deng, "A nonparametric change-point control
    chart", Journal of Quality Technology 42(2), 2010), at a chance of 1 in 1000 for all places together (Bonferroni).
    """
    n = len(values)
    if n < _FEWEST_ROUNDS:
        return None
    above = np.sign(values[:, None] - values[None, :]).sum(axis=1)  # 2 * rank - (n + 1), ties shared
    before = np.arange(_SHORTEST_SIDE, n - _SHORTEST_SIDE + 1)
    sums = np.cumsum(above)[before - 1]
    z = np.abs(sums) / np.sqrt(before * (n - before) * (n + 1) / 3)
    place = int(z.argmax())
    chance = math.erfc(float(z[place]) / math.sqrt(2.0)) * len(before)
    return int(before[place]) if chance < _CHANCE_OF_A_JUMP else None


def interval_width(values: Float64Array) -> float:
    """Return the width of the median's 95 % interval as a fraction of the median, whatever the distribution.

    From order statistics (David & Nagaraja, Order Statistics, 2003, chapter 7): cheap enough to ask while measuring.
    """
    ordered, half = np.sort(values), 0.98 * math.sqrt(len(values))
    low = max(0, math.floor(len(values) / 2 - half))
    high = min(len(values) - 1, math.ceil(len(values) / 2 + half))
    return float((ordered[high] - ordered[low]) / np.median(ordered))
