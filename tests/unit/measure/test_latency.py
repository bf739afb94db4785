from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetl.measure.latency import Plan, Samples, compare, measure, ratio, summarise

QUICK = Plan(seconds=0.05, warmup_ms=1.0, slice_ms=0.5, min_rounds=8)


def busy(operations: int) -> Callable[[], object]:
    """Work that takes time in proportion to ``operations``."""

    def call() -> None:
        for _ in range(operations):
            pass

    return call


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
    latency = summarise(Samples(times.reshape(n, 1)))
    assert (latency.p90, latency.p99) == (p90 + 1.0, p99 + 1.0)
    assert latency.p50 == np.median(times)
    assert latency.mean == pytest.approx(times.mean())


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=250))
def test_percentiles_are_in_order_and_among_the_samples(values: list[float]) -> None:
    latency = summarise(Samples(np.array(values)[:, None]))
    assert latency.p90 == by_hand(values, 90)
    assert latency.p99 == by_hand(values, 99)
    assert min(values) <= latency.p90 <= latency.p99 <= max(values)
    assert latency.low <= latency.p50 <= latency.high
    assert (latency.samples, latency.rounds) == (len(values), len(values))


def test_every_candidate_gets_its_turn_in_every_round_and_the_order_is_drawn_anew() -> None:
    calls: list[str] = []
    names = ("a", "b", "c")
    plan = Plan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=30)
    samples = measure({name: partial(calls.append, name) for name in names}, plan)
    assert {name: one.times.shape for name, one in samples.items()} == dict.fromkeys(names, (30, 1))
    rounds = [tuple(calls[n : n + 3]) for n in range(len(calls) - 90, len(calls), 3)]
    assert all(set(one) == set(names) for one in rounds)
    assert len(set(rounds)) == 6, "all orders of three come up in thirty rounds"


def test_the_same_seed_draws_the_same_order() -> None:
    orders = []
    for _ in range(2):
        calls: list[str] = []
        plan = Plan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=10, seed=3)
        measure({name: partial(calls.append, name) for name in "ab"}, plan)
        orders.append(calls[-20:])
    assert orders[0] == orders[1]


def test_a_fast_candidate_is_repeated_to_fill_its_slice() -> None:
    samples = measure({"slow": busy(40_000), "fast": busy(400)}, QUICK)
    assert samples["fast"].times.shape[1] > samples["slow"].times.shape[1]
    assert samples["fast"].times.shape[0] == samples["slow"].times.shape[0]


def test_a_candidate_that_does_twice_the_work_is_found_to_be_twice_as_slow() -> None:
    plan = Plan(seconds=0.4, warmup_ms=20.0, slice_ms=2.0, min_rounds=30)
    samples = measure({"double": busy(20_000), "single": busy(10_000)}, plan)
    value, low, high = ratio(samples["double"], samples["single"])
    assert 1.5 < value < 2.7
    assert low <= value <= high


def test_measuring_goes_on_until_there_are_enough_rounds_and_never_past_the_most() -> None:
    assert (
        measure({"a": busy(10)}, Plan(seconds=1e-9, warmup_ms=0.0, slice_ms=0.01, min_rounds=7))["a"].times.shape[0]
        == 7
    )
    most = Plan(seconds=60.0, warmup_ms=0.0, slice_ms=0.01, min_rounds=2, max_rounds=12)
    assert measure({"a": busy(10)}, most)["a"].times.shape[0] == 12


def test_the_watcher_is_told_a_share_that_grows_to_the_whole() -> None:
    shares: list[float] = []
    measure({"a": busy(10)}, QUICK, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_steady_times_are_stable() -> None:
    latency = summarise(Samples(steady()))
    assert latency.stable
    assert latency.why_unstable is None


def test_times_that_drift_are_marked_with_how_much() -> None:
    times = steady(60) * np.linspace(1.0, 1.09, 60)[:, None]
    latency = summarise(Samples(times))
    assert not latency.stable
    assert latency.why_unstable == "it drifted by +6% from the first third of the rounds to the last"
    assert not summarise(Samples(times[::-1])).stable, "becoming faster is drift as well"


def test_times_that_jump_about_are_marked_by_their_interval() -> None:
    times = np.random.default_rng(0).choice([1.0, 2.0], size=(40, 1))
    latency = summarise(Samples(times))
    assert not latency.stable
    assert "the interval of the median is" in str(latency.why_unstable)


def test_an_outlier_in_every_round_does_not_make_a_median_unstable() -> None:
    times = steady(repeats=9)
    times[:, 4] = 30.0
    latency = summarise(Samples(times))
    assert latency.stable
    assert latency.p50 < 1.02
    assert latency.p90 == 30.0


def test_what_slows_a_whole_round_cancels_in_the_ratio() -> None:
    slow_down = 1.0 + np.random.default_rng(1).random((60, 1))
    a, b = Samples(2.0 * steady() * slow_down), Samples(steady() * slow_down)
    assert ratio(a, b) == pytest.approx((2.0, 2.0, 2.0))
    assert not summarise(a).stable


def test_every_pair_is_compared_once() -> None:
    samples = {"a": Samples(steady(level=3.0)), "b": Samples(steady()), "c": Samples(steady(level=0.5))}
    found = [(one.a, one.b, one.metric, round(one.ratio or 0.0, 3)) for one in compare(samples)]
    assert found == [("a", "b", "latency", 3.0), ("a", "c", "latency", 6.0), ("b", "c", "latency", 2.0)]
