"""Figures over several rounds, with their intervals and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgetl.arrays import BoolArray, Float64Array
from edgetl.artifacts.measurements import FigureInterval, MissFraction
from edgetl.measure import bootstrap, latency, stability

_RESAMPLES = 1000


def pooled(rounds: Sequence[Float64Array], statistic: Callable[[Float64Array], float], seed: int = 0) -> FigureInterval:
    """Return a statistic of the samples of all rounds, with its interval.

    Samples of one round resemble each other, so whole rounds are drawn with replacement, not samples (the cluster
    bootstrap: Davison & Hinkley 1997, section 3.8).
    """
    rng, count = np.random.default_rng(seed), len(rounds)
    draws = [statistic(np.concatenate([rounds[n] for n in rng.integers(count, size=count)])) for _ in range(_RESAMPLES)]
    value = statistic(np.concatenate(rounds))
    low, high = np.percentile(draws, bootstrap.TAILS)
    return FigureInterval(value=value, low=min(float(low), value), high=max(float(high), value))


def percentile(percent: int) -> Callable[[Float64Array], float]:
    """Return a function that takes a percentile as that of a latency is taken."""
    return lambda samples: latency.percentile(np.sort(samples), percent)


def over_rounds(per_round: Sequence[float] | Float64Array) -> FigureInterval:
    """Return the median of one figure per round, with its interval."""
    value, low, high = bootstrap.median(np.asarray(per_round, np.float64))
    return FigureInterval(value=value, low=low, high=high)


def missed(rounds: Sequence[BoolArray]) -> MissFraction:
    """Return the fraction of true values, with its interval."""
    every = np.concatenate(rounds)
    # Where no round shows any doubt, the exact bound on what so many jobs may not have shown takes the place of the
    # bootstrap's interval.
    if every.all() or not every.any():
        exact = bootstrap.mean_of_hits(every)
        return MissFraction(value=exact.value, low=exact.low, high=exact.high, n=exact.n)
    interval = pooled([one.astype(np.float64) for one in rounds], lambda values: float(values.mean()))
    return MissFraction(**interval.model_dump(), n=len(every))


def why_unstable(per_round: Sequence[float] | Float64Array) -> str | None:
    """Return why the median of a figure of which each round gave one is not to be trusted; None where it is."""
    found = over_rounds(per_round)
    return stability.why_unstable(np.asarray(per_round, np.float64), (found.low, found.high))
