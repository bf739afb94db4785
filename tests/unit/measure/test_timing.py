from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from edgetl.arrays import Float64Array
from edgetl.measure.latency import ratio
from edgetl.measure.timing import LatencySamples, TimingPlan, Workload, measure

QUICK = TimingPlan(seconds=0.05, warmup_ms=1.0, slice_ms=0.5, min_rounds=8)


def busy(operations: int) -> Callable[[], object]:
    """Work that takes time in proportion to ``operations``."""

    def call() -> None:
        for _ in range(operations):
            pass

    return call


def timed(calls: Mapping[str, Workload], plan: TimingPlan) -> dict[str, LatencySamples]:
    return measure(list(calls), lambda *_: calls, plan).samples


def test_every_round_takes_every_candidate_in_an_order_drawn_anew() -> None:
    calls: list[str] = []
    names = ("a", "b", "c")
    plan = TimingPlan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=30, load_rounds=30)
    samples = timed({name: partial(calls.append, name) for name in names}, plan)
    assert {name: one.times.shape for name, one in samples.items()} == dict.fromkeys(names, (30, 1))
    rounds = [tuple(dict.fromkeys(calls[n : n + 6])) for n in range(len(calls) - 180, len(calls), 6)]
    assert all(set(one) == set(names) for one in rounds)
    assert len(set(rounds)) == 6, "all orders of three come up in thirty rounds"


def test_the_same_seed_draws_the_same_order() -> None:
    orders = []
    for _ in range(2):
        calls: list[str] = []
        plan = TimingPlan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=10, seed=3)
        timed({name: partial(calls.append, name) for name in "ab"}, plan)
        orders.append(calls[-20:])
    assert orders[0] == orders[1]


def test_a_fast_candidate_is_repeated_to_fill_its_slice() -> None:
    samples = timed({"slow": busy(40_000), "fast": busy(400)}, QUICK)
    assert samples["fast"].times.shape[1] > samples["slow"].times.shape[1]
    assert samples["fast"].times.shape[0] == samples["slow"].times.shape[0]


def test_a_candidate_that_does_twice_the_work_is_found_to_be_twice_as_slow() -> None:
    plan = TimingPlan(seconds=0.4, warmup_ms=20.0, slice_ms=2.0, min_rounds=30)
    samples = timed({"double": busy(20_000), "single": busy(10_000)}, plan)
    value, low, high = ratio(samples["double"], samples["single"])
    assert 1.5 < value < 2.7
    assert low <= value <= high


def test_measuring_takes_enough_rounds_and_never_more_than_the_most() -> None:
    assert (
        timed({"a": busy(10)}, TimingPlan(seconds=1e-9, warmup_ms=0.0, slice_ms=0.01, min_rounds=7))["a"].times.shape[0]
        == 7
    )
    most = TimingPlan(seconds=60.0, warmup_ms=0.0, slice_ms=0.01, min_rounds=2, max_rounds=12)
    assert timed({"a": busy(10)}, most)["a"].times.shape[0] == 12


def test_the_watcher_is_told_a_share_that_grows_to_the_whole() -> None:
    shares: list[float] = []
    measure(["a"], lambda *_: {"a": busy(10)}, QUICK, watch=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def loading(
    log: list[tuple[str, ...]], calls: Mapping[str, Workload]
) -> Callable[[Sequence[str], int], Mapping[str, Workload]]:
    def load(names: Sequence[str], number: int) -> Mapping[str, Workload]:
        assert number == len(log)
        log.append(tuple(names))
        return calls

    return load


def test_candidates_are_loaded_again_and_again_in_an_order_drawn_anew() -> None:
    log: list[tuple[str, ...]] = []
    calls = {name: busy(10) for name in "abc"}
    plan = TimingPlan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=1000, load_rounds=2)
    found = measure(list("abc"), loading(log, calls), plan)
    assert found.loadings == len(log) > 10
    assert len(set(log)) > 3
    assert all(sorted(order) == ["a", "b", "c"] for order in log)


def test_measuring_ends_when_enough_is_known_but_not_before_the_fourth_loading() -> None:
    log: list[tuple[str, ...]] = []
    told: list[dict[str, int]] = []

    def enough(per_round: Mapping[str, Float64Array]) -> bool:
        told.append({name: len(values) for name, values in per_round.items()})
        return len(told) == 2

    plan = TimingPlan(seconds=600.0, warmup_ms=0.0, slice_ms=1e-6, min_rounds=1, load_rounds=3)
    found = measure(["a"], loading(log, {"a": busy(10)}), plan, enough)
    assert found.loadings == len(log) == 5
    assert found.samples["a"].times.shape[0] == told[-1]["a"] >= 15


def test_the_machine_is_asked_after_every_round() -> None:
    states = iter(range(10_000))
    found = measure(["a"], lambda *_: {"a": busy(10)}, QUICK, probe=lambda: next(states))
    assert found.states == tuple(range(found.samples["a"].times.shape[0]))


class OnADevice:
    """A call whose parts are its number."""

    def __init__(self) -> None:
        self.calls, self.kept = 0, list[float]()

    def __call__(self) -> None:
        self.calls += 1
        self.kept.append(float(self.calls))

    def take_device_times(self) -> Float64Array:
        taken, self.kept = self.kept, []
        return np.array(taken)[:, None] * np.ones(4)


def test_parts_are_those_of_the_timed_calls_and_of_no_other() -> None:
    call = OnADevice()
    plan = TimingPlan(seconds=1e-6, warmup_ms=0.0, slice_ms=1e-6, min_rounds=8, load_rounds=8)
    samples = timed({"a": call}, plan)["a"]
    assert samples.device_times is not None and samples.device_times.shape == (8, 4)
    assert samples.device_times[:, 0].tolist() == [float(call.calls - 14 + 2 * n) for n in range(8)], (
        "settling calls are between"
    )


def test_warming_up_goes_on_while_a_candidate_becomes_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    now, takes = 0, 8_000_000

    def cooling() -> None:
        nonlocal now, takes
        takes = max(1_000_000, int(takes * 0.9))
        now += takes

    # By its own clock: on a busy machine a call may take longer at any time.
    clock = SimpleNamespace(perf_counter=lambda: now / 1e9, perf_counter_ns=lambda: now)
    monkeypatch.setattr("edgetl.measure.timing.time", clock)
    plan = TimingPlan(seconds=0.01, warmup_ms=20.0, slice_ms=0.01, min_rounds=5, load_rounds=5)
    times = timed({"a": cooling}, plan)["a"].times
    assert times.tolist() == [[1.0]] * 5, "ms, which it takes when it is warm"
