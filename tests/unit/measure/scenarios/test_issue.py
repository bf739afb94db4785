from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edgetl.measure.scenarios.issue import ConcurrentWorkload, side_by_side


def asleep(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


class Queued:
    """An engine that queues: an inference is ready when that is so."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self.asked_from: set[int] = set()
        self.taken = self.started = 0

    def start(self) -> Queued:
        assert self.started == self.taken, "one inference is under way at a time"
        self.started += 1
        self.asked_from.add(threading.get_ident())
        return self

    @property
    def ready(self) -> bool:
        return self._ready()

    def result(self) -> None:
        self.taken += 1


def queued(engine: Queued) -> ConcurrentWorkload:
    return ConcurrentWorkload(lambda: engine.start().result(), engine.start)


def test_every_part_does_enough_however_slow_it_is() -> None:
    times = side_by_side(
        {"slow": ConcurrentWorkload(asleep(0.02)), "fast": ConcurrentWorkload(asleep(0.001))}, seconds=0.01, least=4
    )
    assert list(times) == ["slow", "fast"]
    assert len(times["slow"]) >= 4
    assert len(times["fast"]) > len(times["slow"]), "it goes on while the other is waited for"
    assert times["slow"].min() >= 20.0
    assert times["fast"].min() >= 1.0


def test_parts_run_at_the_same_time() -> None:
    together = threading.Barrier(3)  # only three that are there at once pass it
    threads: set[int] = set()

    def meet() -> None:
        if threading.get_ident() not in threads:
            together.wait(30.0)
            threads.add(threading.get_ident())

    side_by_side({name: ConcurrentWorkload(meet) for name in "abc"}, seconds=0.0, least=1)
    assert len(threads) == 3


def test_engines_that_can_queue_are_asked_from_one_thread_without_waiting() -> None:
    fast = Queued(lambda: True)
    slow = Queued(lambda: fast.taken >= 4 * (slow.taken + 1))
    times = side_by_side({"slow": queued(slow), "plain": ConcurrentWorkload(asleep(0.001)), "fast": queued(fast)}, 0.01)
    assert slow.asked_from == fast.asked_from and len(slow.asked_from) == 1
    assert len(times["slow"]) >= 3 and len(times["fast"]) >= 4 * len(times["slow"])
    assert len(times["plain"]) >= 3, "it gets its turn too"
    assert (slow.taken, fast.taken) == (slow.started, fast.started), "nothing is left under way"


def test_a_part_that_fails_ends_it_for_all() -> None:
    def fail() -> None:
        raise OSError("out of memory")

    for failing in (ConcurrentWorkload(fail), ConcurrentWorkload(fail, fail)):
        with pytest.raises(OSError, match="out of memory"):
            side_by_side({"well": ConcurrentWorkload(asleep(0.001)), "failing": failing}, seconds=60.0)


def test_real_sessions_run_side_by_side(session: Callable[[int], Callable[[], object]]) -> None:
    times = side_by_side({"small": ConcurrentWorkload(session(2)), "large": ConcurrentWorkload(session(12))}, 0.05)
    assert all(len(own) >= 3 and own.min() > 0.0 for own in times.values())
