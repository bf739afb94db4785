from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from edgetl.measure.bootstrap import mean_of_hits, median, paired_difference, paired_error


def hits(n: int, right: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.arange(n) < right


@pytest.mark.parametrize(("n", "right"), [(40, 25), (200, 180), (1000, 973)])
def test_the_interval_of_a_share_is_scipys_percentile_bootstrap(n: int, right: int) -> None:
    estimate = mean_of_hits(hits(n, right))
    expected = scipy_bootstrap(
        (hits(n, right).astype(float),), np.mean, method="percentile", n_resamples=9999, batch=500, rng=1
    ).confidence_interval
    assert (estimate.value, estimate.n) == (right / n, n)
    # Both are drawn and lie on the grid of 1/n.
    assert estimate.low == pytest.approx(expected.low, abs=1.01 / n)
    assert estimate.high == pytest.approx(expected.high, abs=1.01 / n)


def test_the_interval_of_a_difference_is_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(5)
    a = rng.random(400) < 0.9
    b = np.where(rng.random(400) < 0.85, a, rng.random(400) < 0.5)
    value, low, high = paired_difference(a, b)
    expected = scipy_bootstrap(
        (a.astype(float), b.astype(float)),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=9999,
        batch=500,
        rng=1,
    ).confidence_interval
    assert value == pytest.approx(a.mean() - b.mean())
    assert low == pytest.approx(expected.low, abs=1.01 / 400)
    assert high == pytest.approx(expected.high, abs=1.01 / 400)


def test_pairing_narrows_the_interval() -> None:
    a, b = hits(500, 400), hits(500, 395)
    _, low, high = paired_difference(a, b)
    alone = mean_of_hits(a)
    assert high - low < (alone.high - alone.low) / 2


def test_the_interval_of_a_median_is_scipys_bootstrap() -> None:
    values = np.random.default_rng(3).lognormal(size=61)
    value, low, high = median(values)
    expected = scipy_bootstrap(
        (values,), np.median, method="percentile", n_resamples=9999, batch=500, rng=1
    ).confidence_interval
    assert value == np.median(values)
    spread = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.15 * spread)
    assert high == pytest.approx(expected.high, abs=0.15 * spread)


@pytest.mark.parametrize("n", [1, 5, 100, 10_000])
def test_all_hits_or_no_hits_still_leave_the_doubt_of_the_exact_interval(n: int) -> None:
    all_right, none_right = mean_of_hits(hits(n, n)), mean_of_hits(hits(n, 0))
    exact = binomtest(n, n).proportion_ci(0.95, method="exact")
    assert (all_right.value, all_right.high) == (1.0, 1.0)
    assert all_right.low == pytest.approx(exact.low)
    assert (none_right.value, none_right.low) == (0.0, 0.0)
    assert none_right.high == pytest.approx(1.0 - exact.low)


@given(st.integers(1, 300), st.floats(0.0, 1.0))
def test_an_interval_holds_its_estimate_and_stays_in_bounds(n: int, chance: float) -> None:
    estimate = mean_of_hits(hits(n, round(n * chance)))
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_two_turns_a_difference_round(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*pairs, strict=True))
    value, low, high = paired_difference(a, b)
    assert -1.0 <= low <= value <= high <= 1.0
    assert paired_difference(b, a)[0] == -value


def test_two_that_agree_differ_by_nothing_but_leave_a_doubt() -> None:
    right = np.ones(100, dtype=np.bool_)
    value, low, high = paired_difference(right, right)
    assert value == 0.0
    # Clopper-Pearson for 0 of 100, two-sided 95 %, as tables have it.
    assert (low, high) == pytest.approx((-0.0362, 0.0362), abs=1e-4)


def test_the_same_seed_gives_the_same_interval() -> None:
    a, b = hits(100, 90), hits(100, 80)
    assert mean_of_hits(a) == mean_of_hits(a)
    assert paired_difference(a, b) == paired_difference(a, b)


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    shares = [mean_of_hits(rng.random(400) < 0.9) for _ in range(300)]
    assert 0.90 <= np.mean([one.low <= 0.9 <= one.high for one in shares]) <= 0.99
    covered = []
    for _ in range(300):
        both = rng.random(400)  # a is right below 0.9, b below 0.85 and, apart from a, in 0.9 to 0.93: 0.02 less
        _, low, high = paired_difference(both < 0.9, (both < 0.85) | ((both > 0.9) & (both < 0.93)))
        covered.append(low <= 0.02 <= high)
    assert 0.90 <= np.mean(covered) <= 0.99


def test_the_error_of_a_paired_difference_is_the_spread_over_drawn_image_sets():
    rng = np.random.default_rng(4)
    a = rng.random(400) < 0.8
    b = np.where(rng.random(400) < 0.1, ~a, a)
    drawn = rng.integers(0, 400, (4000, 400))
    spread = (a[drawn].mean(axis=1) - b[drawn].mean(axis=1)).std()
    assert paired_error(a, b) == pytest.approx(spread, rel=0.05)
    assert paired_error(a, a) == 0.0
