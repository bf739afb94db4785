"""Runs periodic jobs by earliest deadline first, on a real device or a simulated one."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from edgetl.measure.scenarios.schedule import Arrivals, Trace

# How early to wake up (s): sleeping alone ends up to a millisecond late, and more on a busy machine.
_SPIN = 2e-3


class JobRunner(Protocol):
    """A device that does one job at a time."""

    def now(self) -> float:
        """Return the seconds since the schedule began."""

    def wait_until(self, when: float) -> None:
        """Idle; ``now`` is then ``when`` or later."""

    def serve(self, job: int) -> None:
        """Do a job from its beginning to its end."""


class RealTimeRunner:
    """Runs each job as a call of this process. Its schedule begins when the runner is made."""

    def __init__(self, jobs: Sequence[Callable[[], object]]) -> None:
        self._jobs = jobs
        self._begin = time.perf_counter()

    def now(self) -> float:
        return time.perf_counter() - self._begin

    def wait_until(self, when: float) -> None:
        """Sleep, and spin through the last part."""
        while (left := when - self.now()) > 0.0:
            if left > _SPIN:
                time.sleep(left - _SPIN)

    def serve(self, job: int) -> None:
        self._jobs[job]()


def execute(arrivals: Arrivals, device: JobRunner) -> Trace:
    """Do all jobs, and return when each began and ended.

    Of the jobs that are due, that with the earliest deadline is done first, from its beginning to its end; the device
    idles only while nothing is due. Of all policies that neither interrupt nor idle, earliest deadline first meets
    every deadline that any of them can promise to meet, whatever the phases (Jeffay, Stanat & Martel 1991); it needs no
    priorities. Ties go to the job that was due first.
    """
    count = len(arrivals)
    start, finish = np.empty(count), np.empty(count)
    ready: list[tuple[float, int]] = []
    due = 0
    while due < count or ready:
        while due < count and arrivals.at[due] <= device.now():
            heapq.heappush(ready, (float(arrivals.deadline[due]), due))
            due += 1
        if not ready:
            device.wait_until(float(arrivals.at[due]))
            continue
        _, job = heapq.heappop(ready)
        start[job] = device.now()
        device.serve(job)
        finish[job] = device.now()
    return Trace(arrivals, start, finish)
