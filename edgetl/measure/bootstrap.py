"""Percentile bootstrap intervals (Efron & Tibshirani 1993, chapter 13), seeded."""

from __future__ import annotations

import numpy as np

from edgetl.arrays import BoolArray, Float64Array
from edgetl.artifacts.measurements import AccuracyEstimate

RESAMPLES = 10_000
CONFIDENCE = 0.95
TAILS = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)


def mean_of_hits(hits: BoolArray, seed: int = 0) -> AccuracyEstimate:
    """Return the fraction of true values with its interval.

    Resampling N hits and misses with replacement is drawing from a binomial distribution, so that is what is done.
    Where all are hits or all are misses every sample is alike; the exact one-sided bound (Clopper & Pearson 1934) takes
    the place of the end that is in doubt.
    """
    n, value = len(hits), float(hits.mean())
    if value in {0.0, 1.0}:
        slack = unseen(n)
        return AccuracyEstimate(value=value, low=max(0.0, value - slack), high=min(1.0, value + slack), n=n)
    draws = np.random.default_rng(seed).binomial(n, value, RESAMPLES) / n
    low, high = np.percentile(draws, TAILS)
    return AccuracyEstimate(value=value, low=float(low), high=float(high), n=n)


def unseen(n: int) -> float:
    """Return the greatest chance of an event that n trials may still not have shown."""
    return float(1.0 - ((1 - CONFIDENCE) / 2) ** (1.0 / n))


def paired_difference(a: BoolArray, b: BoolArray, seed: int = 0) -> tuple[float, float, float]:
    """Return fraction(a) - fraction(b) over the same images, and its interval.

    An image counts +1 where only a is right, -1 where only b is; resampling those is drawing from a multinomial. Where
    the two agree on every image, the exact bound on how often they might differ takes its place, as in `mean_of_hits`.
    """
    n = len(a)
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    if wins == losses == 0:
        slack = unseen(n)
        return 0.0, -slack, slack
    chances = np.array([wins, losses, n - wins - losses]) / n
    draws = np.random.default_rng(seed).multinomial(n, chances, RESAMPLES)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / n, TAILS)
    return (wins - losses) / n, float(low), float(high)


def paired_error(a: BoolArray, b: BoolArray) -> float:
    """Return the standard error of fraction(a) - fraction(b) over the same images."""
    return float(np.std(a.astype(np.int8) - b.astype(np.int8)) / np.sqrt(len(a)))


def median(
    values: Float64Array, seed: int = 0, confidence: float = CONFIDENCE, run: int = 1
) -> tuple[float, float, float]:
    """Return the median and its interval.

    Args:
        values: n, independent; or in the order of time, where what disturbs one also disturbs the next: then runs of
            ``run`` values are drawn instead of single ones, in a circle (Politis & Romano, "A circular
            block-resampling procedure for stationary data", 1992).
    """
    # A median of each draw has to be sorted for, so there are fewer of them than of means.
    n, draws = len(values), RESAMPLES // 5
    starts = np.random.default_rng(seed).integers(0, n, (draws, -(-n // run), 1))
    drawn = values[((starts + np.arange(run)) % n).reshape(draws, -1)[:, :n]]
    low, high = np.percentile(np.median(drawn, axis=1), (50 * (1 - confidence), 50 * (1 + confidence)))
    return float(np.median(values)), float(low), float(high)
