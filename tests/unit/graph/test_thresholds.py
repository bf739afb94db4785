"""Thresholds that do what their methods' names say."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.graph.histogram import Histogram
from edgetl.graph.thresholds import least_divergence, least_squares, percentile, threshold


@pytest.mark.parametrize("share", [90.0, 99.0, 99.9, 100.0])
def test_percentile_is_that_of_the_magnitudes_to_one_bin(share):
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    exact = np.percentile(np.abs(values), share, method="inverted_cdf")
    assert exact <= percentile(histogram, share) <= exact + histogram.width


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "outlier"])
def test_mse_is_within_a_hair_of_the_best_threshold_by_trying_all(draw):
    random = np.random.default_rng(3)
    values = random.normal(size=20_000) if draw == "outlier" else getattr(random, draw)(size=20_000)
    values = np.append(values, 40.0 if draw == "outlier" else values[0]).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)

    def error(amax: float) -> float:
        step = amax / 127
        return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).mean())

    largest = float(np.abs(values).max())
    best = min(error(amax) for amax in np.linspace(largest / 40, largest, 400))
    assert error(least_squares(histogram, largest)) <= 1.1 * best


def test_mse_clips_an_outlier_in_a_million_that_max_follows():
    values = np.random.default_rng(5).normal(size=1_000_000).astype(np.float32)
    values[0] = 60.0
    histogram = Histogram()
    histogram.add(values)
    assert histogram.maximum == 60.0
    assert 3.0 < least_squares(histogram, 60.0) < 15.0


def counted(values):
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def test_entropy_keeps_a_uniform_range_and_clips_a_long_tail():
    random = np.random.default_rng(0)
    assert least_divergence(counted(random.uniform(-1.0, 1.0, 100_000))) == pytest.approx(1.0, abs=0.01)
    tail = np.append(np.abs(random.normal(size=100_000)), 30.0)
    assert 2.5 < least_divergence(counted(tail)) < 8.0


def test_entropy_is_the_least_divergence_of_scipy_over_every_threshold_tried():
    """The same quantity by another road: 128 levels by plain loops, the divergence by scipy."""
    stats = pytest.importorskip("scipy.stats")
    histogram = counted(np.random.default_rng(2).laplace(size=50_000))
    counts = histogram.counts.reshape(2048, 2).sum(axis=1).astype(float)
    counts[0] = counts[1]

    def divergence(end: int) -> float:
        p = counts[:end].copy()
        p[-1] += counts[end:].sum()
        q = np.zeros(end)
        for level in range(128):
            start, stop = level * end // 128, (level + 1) * end // 128
            some = p[start:stop] > 0
            if some.any():
                q[start:stop] = np.where(some, counts[start:stop].sum() / some.sum(), 0.0)
        return float(stats.entropy(p[p > 0], np.maximum(q[p > 0], 1e-12 * q.sum())))

    least = min(divergence(end) for end in range(128, 2049, 8))
    chosen = round(least_divergence(histogram) / (2 * histogram.width))
    assert divergence(chosen) <= least * 1.002


@pytest.mark.parametrize("method", ["max", "percentile 99.99", "entropy", "mse"])
@pytest.mark.parametrize("values", [[0.0, -0.0], [3.0], [-2.5, 0.0], [1e-30, 2e-30], [1e30, -1e30]])
def test_no_method_goes_beyond_what_was_seen_or_below_nothing(method, values):
    histogram = counted(values)
    assert 0.0 <= threshold(histogram, method) <= np.abs(np.float32(values)).max() * (1 + 2**-8)


@pytest.mark.parametrize("method", ["max", "percentile 99.99", "entropy", "mse"])
def test_noise_as_small_as_that_of_summation_makes_no_other_threshold(method):
    """Another processor sums in another order: 1e-7 of a value, which moves some values to the next bin."""
    random = np.random.default_rng(11)
    values = np.abs(random.normal(size=200_000)).astype(np.float32)
    noisy = (values * (1 + random.normal(0.0, 1e-7, values.shape))).astype(np.float32)
    assert threshold(counted(values), method) == threshold(counted(noisy), method)
