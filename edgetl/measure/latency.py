"""From the times of candidates to latencies and what can be said of two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.results import Comparison, DeviceTimes, Latency, Percentiles
from edgetl.measure import bootstrap
from edgetl.measure.stability import interval_width, why_unstable
from edgetl.measure.timing import LatencySamples

CERTAIN = 0.99
"""Confidence of ratios. Many pairs are compared, and a winner is what people act on."""


def summarise(samples: LatencySamples) -> Latency:
    """Percentiles over all samples, the interval of the median over rounds, and whether to trust them."""
    flat = np.sort(samples.times, axis=None)
    per_round = samples.per_round
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
    """As trtexec takes it: the sample that ``percent`` of all samples do not exceed, no interpolation.

    In whole numbers, because ``(1 - 0.9) * 10`` is a little less than one.
    """
    return float(ordered[max(len(ordered) - 1 - (100 - percent) * len(ordered) // 100, 0)])


def device_times(parts: Float64Array) -> DeviceTimes:
    """trtexec's figures, from calls x (H2D, compute, D2H, enqueue): its latency is the sum of the first three."""
    columns = (*parts[:, :3].T, parts[:, :3].sum(axis=1), parts[:, 3])
    return DeviceTimes(**dict(zip(("h2d", "compute", "d2h", "latency", "enqueue"), map(_part, columns), strict=True)))


def _part(times: Float64Array) -> Percentiles:
    ordered = np.sort(times)
    return Percentiles(
        p50=float(np.median(ordered)),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        mean=float(ordered.mean()),
    )


def ratio(a: LatencySamples, b: LatencySamples) -> tuple[float, float, float]:
    """Median over rounds of a's time by b's, and its interval at `CERTAIN`.

    Rounds are taken as independent: what outlasts a round has hit both.
    """
    return bootstrap.median(a.per_round / b.per_round, confidence=CERTAIN)


def compare_latencies(samples: Mapping[str, LatencySamples]) -> tuple[Comparison, ...]:
    """The ratio of every pair."""
    return tuple(_comparison(a, b, samples[a], samples[b]) for a, b in combinations(samples, 2))


def _comparison(a: str, b: str, of_a: LatencySamples, of_b: LatencySamples) -> Comparison:
    value, low, high = ratio(of_a, of_b)
    why = why_unstable(of_a.per_round / of_b.per_round, (low, high))
    return Comparison(a=a, b=b, metric="latency", ratio=value, low=low, high=high, why_unstable=why)


def narrow(width: float, limit: float | None = None) -> Callable[[Mapping[str, Float64Array]], bool]:
    """For `measure`: whether every median and every ratio is known to a share of ``width``.

    Args:
        limit: of the ratio of the first candidate to the last: whether it is above has to be clear too.
    """

    def enough(per_round: Mapping[str, Float64Array]) -> bool:
        ratios = [per_round[a] / per_round[b] for a, b in combinations(per_round, 2)]
        if any(interval_width(values) > width for values in (*per_round.values(), *ratios)):
            return False
        values = list(per_round.values())
        return limit is None or not _straddles(values[0] / values[-1], limit)

    return enough


def _straddles(ratios: Float64Array, limit: float) -> bool:
    _, low, high = bootstrap.median(ratios, confidence=CERTAIN)
    return low <= limit <= high
