"""Latencies from the times of candidates, and the ratio of two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.results import Comparison, DeviceTimes, Latency, Percentiles
from edgetl.measure import bootstrap
from edgetl.measure.stability import interval_width, why_unstable
from edgetl.measure.timing import LatencySamples

# Confidence of ratios: many pairs are compared, and a winner is what people act on.
CERTAIN = 0.99


def summarise(samples: LatencySamples) -> Latency:
    """Return percentiles over all samples, the interval of the median over rounds, and whether to trust them."""
    flat = np.sort(samples.times, axis=None)
    per_round = samples.per_round
    # What disturbs one round disturbs the next: runs of about the cube root of n rounds are drawn, the usual length.
    _, low, high = bootstrap.median(per_round, run=max(1, round(len(per_round) ** (1 / 3))))
    p50 = float(np.median(flat))
    why = why_unstable(per_round, (low, high), samples.warm)
    return Latency(
        p50=p50,
        p90=percentile(flat, 90),
        p99=percentile(flat, 99),
        mean=float(flat.mean()),
        low=min(low, p50),
        high=max(high, p50),
        samples=flat.size,
        rounds=len(per_round),
        stable=why is None,
        why_unstable=why,
        device=None if samples.device_times is None else device_times(samples.device_times),
    )


def percentile(ordered: Float64Array, percent: int) -> float:
    """Return the sample that ``percent`` of all samples do not exceed, without interpolation, as trtexec does.

    ``ordered`` holds the samples by rising size.
    """
    # In whole numbers, because ``(1 - 0.9) * 10`` is a little less than one.
    return float(ordered[max(len(ordered) - 1 - (100 - percent) * len(ordered) // 100, 0)])


def device_times(parts: Float64Array) -> DeviceTimes:
    """Return trtexec's figures from calls x (H2D, compute, D2H, enqueue); its latency is the sum of the first three."""
    columns = (*parts[:, :3].T, parts[:, :3].sum(axis=1), parts[:, 3])
    figures = {}
    for name, times in zip(("h2d", "compute", "d2h", "latency", "enqueue"), map(np.sort, columns), strict=True):
        p50, mean = float(np.median(times)), float(times.mean())
        figures[name] = Percentiles(p50=p50, p90=percentile(times, 90), p99=percentile(times, 99), mean=mean)
    return DeviceTimes(**figures)


def ratio(a: LatencySamples, b: LatencySamples) -> tuple[float, float, float]:
    """Return the median over rounds of a's time divided by b's, and its interval at `CERTAIN`.

    Rounds are taken as independent: what outlasts a round has hit both.
    """
    return bootstrap.median(a.per_round / b.per_round, confidence=CERTAIN)


def compare_latencies(samples: Mapping[str, LatencySamples]) -> tuple[Comparison, ...]:
    """Return the ratio of every pair, and why it is not to be trusted where that is so."""
    comparisons = []
    for a, b in combinations(samples, 2):
        value, low, high = ratio(samples[a], samples[b])
        why = why_unstable(samples[a].per_round / samples[b].per_round, (low, high))
        comparisons.append(Comparison(a=a, b=b, metric="latency", ratio=value, low=low, high=high, why_unstable=why))
    return tuple(comparisons)


def narrow(width: float, limit: float | None = None) -> Callable[[Mapping[str, Float64Array]], bool]:
    """Return a test for `measure`: whether every median and every ratio is known to a fraction of ``width``.

    Args:
        limit: of the ratio of the first candidate to the last: it must also be clear on which side of it that is.
    """

    def enough(per_round: Mapping[str, Float64Array]) -> bool:
        ratios = [per_round[a] / per_round[b] for a, b in combinations(per_round, 2)]
        if any(interval_width(values) > width for values in (*per_round.values(), *ratios)):
            return False
        if limit is None:
            return True
        values = list(per_round.values())
        _, low, high = bootstrap.median(values[0] / values[-1], confidence=CERTAIN)
        return not low <= limit <= high

    return enough
