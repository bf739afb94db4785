"""The simulation against the theory of queues and of schedules, which nobody here wrote."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.measure.scenarios.schedule import Arrivals, Trace, periodic

simulation = pytest.importorskip("benchmarks.simulation", reason="benchmarks/ is not part of the source distribution")
drawn, simulate = simulation.drawn, simulation.simulate

TICK = 1.0 / 64.0
"""Periods and services are whole numbers of it, so that sums of floats are exact."""

tasks = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 24)), min_size=1, max_size=4)
"""Service and period of each part, in ticks."""


def constant(arrivals: Arrivals, services: list[float]) -> np.ndarray:
    return np.asarray(services)[arrivals.part]


def on_ticks(arrivals: Arrivals) -> Arrivals:
    """Rates and phases are rounded: a job that is due at a tick may come out a little after it. It is put back."""
    at, deadline = (
        np.where(np.abs(times - np.rint(times / TICK) * TICK) < 1e-9, np.rint(times / TICK) * TICK, times)
        for times in (arrivals.at, arrivals.deadline)
    )
    return replace(arrivals, at=at, deadline=deadline)


def run(parts: list[tuple[int, int]], phases: list[float], horizon: int = 200) -> Trace:
    arrivals = on_ticks(periodic([1.0 / (period * TICK) for _, period in parts], phases, horizon * TICK))
    return simulate(arrivals, constant(arrivals, [service * TICK for service, _ in parts]))


@given(tasks, st.data())
def test_jobs_are_done_once_one_by_one_without_idling(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    phases = data.draw(st.lists(st.floats(0.0, 0.999), min_size=len(parts), max_size=len(parts)))
    trace = run(parts, phases)
    order = np.argsort(trace.start)
    start, finish, at = trace.start[order], trace.finish[order], trace.arrivals.at
    assert (start[1:] >= finish[:-1]).all(), "no two at once"
    assert (trace.start >= at).all(), "none before it is due"
    assert (trace.response >= trace.service).all()
    services = np.array([service for service, _ in parts])[trace.arrivals.part] * TICK
    np.testing.assert_allclose(trace.service, services, atol=1e-9)
    for begin, end in zip(finish[:-1], start[1:], strict=True):
        waiting = (at < begin) & (trace.start >= end)
        assert end == begin or not waiting.any(), "an idle device with work to do"


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0.0, 0.999))
def test_a_single_part_that_fits_its_period_never_waits(service: int, period: int, phase: float) -> None:
    """D/D/1: response is service, the queue is one, utilisation is service by period."""
    service = min(service, period)
    trace = run([(service, period)], [phase])
    np.testing.assert_allclose(trace.response, service * TICK, rtol=1e-9)
    assert trace.longest_queue <= 1 or service == period
    assert trace.utilisation == pytest.approx(service / period)


@given(st.integers(1, 20), st.integers(1, 10))
def test_a_part_that_does_not_fit_falls_behind_by_the_difference_each_period(period: int, more: int) -> None:
    """D/D/1 above 1: job k waits k times what service exceeds the period by, and the run still ends."""
    trace = run([(period + more, period)], [0.0])
    waited = trace.start - trace.arrivals.at
    np.testing.assert_allclose(waited, np.arange(len(waited)) * more * TICK, atol=1e-9)
    assert trace.utilisation > 1.0


@given(tasks)
def test_utilisation_is_the_sum_of_service_by_period(parts: list[tuple[int, int]]) -> None:
    """Liu & Layland 1973."""
    trace = run(parts, [0.0] * len(parts))
    assert trace.utilisation == pytest.approx(sum(service / period for service, period in parts))


def jeffay(parts: list[tuple[int, int]]) -> bool:
    """What earliest deadline first, not interrupted, promises for any phases (Jeffay, Stanat & Martel 1991)."""
    parts = sorted(parts, key=lambda one: one[1])
    if sum(service / period for service, period in parts) > 1.0:
        return False
    return all(
        length >= service + sum(floor((length - 1) / p) * c for c, p in parts[:number])
        for number, (service, period) in enumerate(parts)
        for length in range(parts[0][1] + 1, period)
    )


@given(tasks, st.data())
def test_what_theory_promises_is_never_missed(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    ticks = [data.draw(st.integers(0, period - 1)) for _, period in parts]
    trace = run(parts, [tick / period for tick, (_, period) in zip(ticks, parts, strict=True)])
    if jeffay(parts):
        assert trace.lateness.max(initial=0.0) < TICK / 2


def test_what_theory_does_not_promise_is_missed_for_some_phases() -> None:
    """A long job that cannot be interrupted blocks a short period, though the device has time to spare."""
    parts = [(1, 4), (6, 24)]
    assert not jeffay(parts)
    assert sum(service / period for service, period in parts) == 0.5
    assert run(parts, [0.25, 0.0]).missed.any()


def test_earliest_deadline_first_meets_what_first_come_would_miss() -> None:
    """The short part is due last, while nine ticks of work wait, and has eight ticks of time."""
    assert not run([(3, 24), (3, 24), (3, 24), (1, 8)], [0.0, 0.0, 0.0, 1.0 / 8.0]).missed.any()


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_for_random_arrivals_is_that_of_pollaczek_and_khinchine(load: float) -> None:
    """M/D/1: the mean wait is load * service / (2 (1 - load))."""
    rng, count = np.random.default_rng(1), 200_000
    at = np.cumsum(rng.exponential(1.0 / load, count))
    arrivals = Arrivals(np.zeros(count, np.int64), at, at + 1.0, float(at[-1]))
    trace = simulate(arrivals, np.ones(count))
    assert (trace.start - at).mean() == pytest.approx(load / (2.0 * (1.0 - load)), rel=0.05)


def test_jobs_are_due_at_their_rate_and_no_error_adds_up() -> None:
    arrivals = periodic([30.0, 5.0], [0.5, 0.0], 100.0)
    people, signs = arrivals.at[arrivals.part == 0], arrivals.at[arrivals.part == 1]
    assert (len(people), len(signs)) == (3000, 500)
    assert people[-1] == (0.5 + 2999) / 30.0
    assert (np.diff(arrivals.at) >= 0.0).all()
    np.testing.assert_allclose(arrivals.deadline[arrivals.part == 1] - signs, 0.2)


def test_the_longest_queue_counts_what_is_due_and_not_done() -> None:
    at = np.array([0.0, 0.1, 0.2, 3.0])
    arrivals = Arrivals(np.arange(4), at, at + 10.0, 4.0)
    assert simulate(arrivals, np.full(4, 1.0)).longest_queue == 3
    assert simulate(arrivals, np.full(4, 0.1)).longest_queue == 1


def test_service_times_are_drawn_from_those_of_the_job_s_own_part() -> None:
    arrivals = periodic([10.0, 20.0], [0.0, 0.0], 5.0)
    service = drawn(arrivals, (np.array([1.0, 2.0]), np.array([7.0])), np.random.default_rng(0))
    assert set(service[arrivals.part == 0]) == {1.0, 2.0}
    assert set(service[arrivals.part == 1]) == {7.0}
