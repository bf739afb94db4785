from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from edgetl.measure.scenarios.cadence import PeriodicWorkload, measure_cadence, schedule
from edgetl.measure.scenarios.executor import RealTimeRunner, execute
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.scenarios.schedule import Arrivals, periodic

QUICK = ScenarioPlan(seconds=0.0001, warmup_ms=1.0, min_rounds=2)


def asleep(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def test_a_real_device_does_every_job_once_in_its_time_and_one_after_another() -> None:
    done: list[int] = []
    arrivals = periodic([40.0, 25.0], [0.2, 0.6], 0.3)
    jobs = [lambda number=number: done.append(number) for number in arrivals.part]
    trace = execute(arrivals, RealTimeRunner(jobs))
    assert sorted(done) == sorted(arrivals.part)
    assert (trace.start >= arrivals.at).all()
    order = np.argsort(trace.start)
    assert (trace.start[order][1:] >= trace.finish[order][:-1]).all()


def test_response_counts_from_when_a_job_was_due() -> None:
    """Four jobs due at once: a closed loop would call each of them 20 ms."""
    at = np.zeros(4)
    arrivals = Arrivals(np.zeros(4, np.int64), at, at + 0.03, 0.1)
    trace = execute(arrivals, RealTimeRunner([asleep(0.02)] * 4))
    assert sorted(trace.response) == list(trace.response)
    assert trace.response[3] >= 0.08
    assert trace.missed.sum() >= 3
    assert trace.longest_queue == 4


def test_the_most_urgent_of_what_is_due_goes_first() -> None:
    done: list[int] = []
    arrivals = Arrivals(np.arange(3), np.zeros(3), np.array([3.0, 1.0, 2.0]), 1.0)
    execute(arrivals, RealTimeRunner([lambda number=number: done.append(number) for number in range(3)]))
    assert done == [1, 2, 0]


def test_waiting_ends_when_it_is_due_never_before() -> None:
    device = RealTimeRunner([])
    for when in (0.0, 0.001, 0.01):
        device.wait_until(when)
        assert device.now() >= when


@pytest.mark.slow
def test_a_cadence_that_is_met_is_told_part_by_part(session: Callable[[int], Callable[[], object]]) -> None:
    parts = {"people": PeriodicWorkload(session(2), 30.0), "signs": PeriodicWorkload(session(6), 5.0)}
    (found,) = measure_cadence({"specialised": parts}, QUICK)
    assert (found.title, found.rounds, found.unmet) == ("specialised", 2, None)
    assert [(part.name, part.rate_hz) for part in found.parts] == [("people", 30.0), ("signs", 5.0)]
    assert [part.missed.n for part in found.parts] == [36, 6], "0.6 s in each round: three periods of the slowest"
    assert found.missed is not None and found.missed.n == 42
    for part in found.parts:
        assert 0.0 < part.service_ms <= part.response_p50_ms <= part.response_p99_ms.value <= part.response_worst_ms
        assert part.lateness_worst_ms >= 0.0
    assert 0.0 < found.utilisation.value < 1.0
    assert found.longest_queue is not None and 1 <= found.longest_queue <= 42
    assert found.seconds == pytest.approx(1.2)


@pytest.mark.slow
def test_one_that_needs_more_than_the_device_is_not_run() -> None:
    calls: list[float] = []

    def slow() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.02)

    candidates = {
        "too much": {"a": PeriodicWorkload(slow, 200.0)},
        "well": {"a": PeriodicWorkload(asleep(0.0001), 20.0)},
    }
    refused, met = measure_cadence(candidates, QUICK)
    assert refused.unmet is not None and refused.unmet.startswith("it needs ")
    assert refused.unmet.endswith("% of the device's time; lower the rates or take a faster deployment")
    assert refused.utilisation.value >= 4.0
    assert (refused.parts, refused.missed, refused.rounds) == ((), None, 0)
    assert len(calls) == 5, "to warm up, no more"
    assert met.unmet is None and met.rounds == 2


def test_when_none_can_be_met_it_ends() -> None:
    (found,) = measure_cadence({"a": {"a": PeriodicWorkload(asleep(0.01), 1e6)}}, QUICK)
    assert found.unmet is not None


@pytest.mark.slow
def test_deadlines_that_are_missed_are_counted() -> None:
    """A short period beside a long inference that cannot be interrupted."""
    parts = {"short": PeriodicWorkload(asleep(0.0001), 100.0), "long": PeriodicWorkload(asleep(0.08), 5.0)}
    (found,) = measure_cadence({"both": parts}, QUICK)
    short = found.parts[0]
    assert short.missed.value > 0.0 and short.missed.low <= short.missed.value <= short.missed.high
    assert short.lateness_worst_ms > 10.0
    assert short.response_worst_ms > short.lateness_worst_ms


def test_phases_are_drawn_anew_for_each_round_and_the_same_for_a_seed() -> None:
    parts = {"a": PeriodicWorkload(print, 10.0), "b": PeriodicWorkload(print, 3.0)}
    first, again = np.random.default_rng(5), np.random.default_rng(5)
    one, two = schedule(parts, first), schedule(parts, first)
    assert one.at[0] != two.at[0]
    np.testing.assert_array_equal(schedule(parts, again).at, one.at)
    assert one.horizon == 1.0
