"""Runs periodic jobs by earliest deadline first, on a real device or a simulated one."""

from __future__ import annotations

import heapq
from typing import Protocol

import numpy as np

from edgetl.measure.scenarios.schedule import Arrivals, Trace


class JobRunner(Protocol):
    """A device that does one job at a time."""

    def now(self) -> float:
        """Return the seconds since the schedule began."""

    def wait_until(self, when: float) -> None:
        """Idle; ``now`` is then ``when`` or later."""

    def serve(self, job: int) -> None:
        """Do a job from its beginning to its end."""


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
