from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetl.measure.latency import compare_latencies, device_times, narrow, ratio, summarise
from edgetl.measure.timing import LatencySamples


def steady(rounds: int = 60, repeats: int = 5, level: float = 1.0, noise: float = 0.01) -> NDArray[np.float64]:
    return level * (1.0 + noise * np.random.default_rng(0).random((rounds, repeats)))


def by_hand(values: list[float], percent: int) -> float:
    """trtexec: sorted[max(N - 1 - int((1 - p / 100) * N), 0)], in whole numbers."""
    n = len(values)
    return sorted(values)[max(n - 1 - ((100 - percent) * n) // 100, 0)]


@pytest.mark.parametrize(
    ("n", "p90", "p99"),
    [(1, 0, 0), (2, 1, 1), (10, 8, 9), (20, 17, 19), (99, 89, 98), (100, 89, 98), (1000, 899, 989)],
)
def test_percentiles_are_samples_counted_as_trtexec_counts(n: int, p90: int, p99: int) -> None:
    times = np.random.default_rng(0).permutation(n).astype(np.float64) + 1.0
    latency = summarise(LatencySamples(times.reshape(n, 1)))
    assert (latency.p90, latency.p99) == (p90 + 1.0, p99 + 1.0)
    assert latency.p50 == np.median(times)
    assert latency.mean == pytest.approx(times.mean())


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=250))
def test_percentiles_are_in_order_and_among_the_samples(values: list[float]) -> None:
    latency = summarise(LatencySamples(np.array(values)[:, None]))
    assert latency.p90 == by_hand(values, 90)
    assert latency.p99 == by_hand(values, 99)
    assert min(values) <= latency.p90 <= latency.p99 <= max(values)
    assert latency.low <= latency.p50 <= latency.high
    assert (latency.samples, latency.rounds) == (len(values), len(values))


def test_steady_times_are_stable() -> None:
    latency = summarise(LatencySamples(steady()))
    assert latency.stable
    assert latency.why_unstable is None


def test_times_that_drift_are_marked_with_how_much() -> None:
    times = steady(60) * np.linspace(1.0, 1.09, 60)[:, None]
    latency = summarise(LatencySamples(times))
    assert not latency.stable
    assert latency.why_unstable == "it drifted by +6% from the first third of the rounds to the last"
    assert not summarise(LatencySamples(times[::-1])).stable, "becoming faster is drift as well"


def test_times_that_jump_about_are_marked_by_their_interval() -> None:
    times = np.random.default_rng(0).choice([1.0, 2.0], size=(40, 1))
    latency = summarise(LatencySamples(times))
    assert not latency.stable
    assert "the interval of the median is" in str(latency.why_unstable)


def test_an_outlier_in_every_round_does_not_make_a_median_unstable() -> None:
    times = steady(repeats=9)
    times[:, 4] = 30.0
    latency = summarise(LatencySamples(times))
    assert latency.stable
    assert latency.p50 < 1.02
    assert latency.p90 == 30.0


def test_what_slows_a_whole_round_cancels_in_the_ratio() -> None:
    slow_down = 1.0 + np.random.default_rng(1).random((60, 1))
    a, b = LatencySamples(2.0 * steady() * slow_down), LatencySamples(steady() * slow_down)
    assert ratio(a, b) == pytest.approx((2.0, 2.0, 2.0))
    assert not summarise(a).stable


def test_a_candidate_that_was_not_warm_is_marked() -> None:
    latency = summarise(LatencySamples(steady(), warm=False))
    assert latency.why_unstable == "it was still becoming faster when measuring began"


def test_a_ratio_that_jumps_is_marked_though_each_side_is_no_more_than_noisy() -> None:
    load = np.where(np.arange(60) < 30, 1.0, 1.2)[:, None]
    (pair,) = compare_latencies({"a": LatencySamples(steady() * load), "b": LatencySamples(steady())})
    assert pair.why_unstable == "it changed by +20% after 30 of 60 rounds"
    (even,) = compare_latencies({"a": LatencySamples(steady() * load), "b": LatencySamples(steady() * load)})
    assert even.why_unstable is None, "what hits both cancels"


def test_every_pair_is_compared_once() -> None:
    samples = {
        "a": LatencySamples(steady(level=3.0)),
        "b": LatencySamples(steady()),
        "c": LatencySamples(steady(level=0.5)),
    }
    found = [(one.a, one.b, one.metric, round(one.ratio or 0.0, 3)) for one in compare_latencies(samples)]
    assert found == [("a", "b", "latency", 3.0), ("a", "c", "latency", 6.0), ("b", "c", "latency", 2.0)]


@pytest.mark.slow
def test_the_interval_of_a_ratio_covers_what_no_difference_is_nearly_always() -> None:
    """99 %: of 400 pairs of equal candidates in correlated noise hardly any interval leaves out 1."""
    rng = np.random.default_rng(7)
    missed = 0
    for _ in range(400):
        wander = np.cumsum(rng.normal(0, 0.002, 80))[:, None]
        a, b = (LatencySamples(np.exp(wander + rng.normal(0, 0.03, (80, 3)))) for _ in "ab")
        _, low, high = ratio(a, b)
        missed += not low <= 1.0 <= high
    assert missed <= 12


def test_trtexecs_latency_is_the_sum_of_its_parts_call_by_call() -> None:
    parts = np.random.default_rng(0).random((100, 4))
    times = device_times(parts)
    total = parts[:, :3].sum(axis=1).tolist()
    assert times.latency.p99 == by_hand(total, 99)
    assert times.latency.mean == pytest.approx(times.h2d.mean + times.compute.mean + times.d2h.mean)
    assert times.enqueue.p50 == np.median(parts[:, 3])
    latency = summarise(LatencySamples(steady(20, 5), parts))
    assert latency.device == times


def test_measuring_may_end_when_medians_and_ratios_are_known_well_enough() -> None:
    quiet = {name: LatencySamples(steady(100, noise=0.002)).per_round for name in "ab"}
    noisy = {**quiet, "c": LatencySamples(steady(100, noise=0.5)).per_round}
    assert narrow(0.01)(quiet)
    assert not narrow(0.01)(noisy)


def test_with_a_limit_it_goes_on_while_the_ratio_may_be_on_either_side() -> None:
    old = 1.0 + 0.02 * np.random.default_rng(1).random(200)
    new = 1.05 * (1.0 + 0.02 * np.random.default_rng(2).random(200))
    per_round = {"new": new, "old": old}
    assert not narrow(0.5, limit=1.05)(per_round)
    assert narrow(0.5, limit=1.10)(per_round)
    assert narrow(0.5, limit=1.01)(per_round)
