"""When inferences are due, and when they ran. Times are in seconds from the beginning of the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.arrays import BoolArray, Float64Array, Int64Array


@dataclass(frozen=True)
class Arrivals:
    """Jobs in the order in which they are due.

    Attributes:
        part: the number of the engine that each of them asks.
        at: when it is due.
        deadline: when it has to be done.
        horizon: how long the schedule goes on.
    """

    part: Int64Array
    at: Float64Array
    deadline: Float64Array
    horizon: float

    def __len__(self) -> int:
        return len(self.at)


def periodic(rates: Sequence[float], phases: Sequence[float], horizon: float) -> Arrivals:
    """Return the jobs of parts that each run at their own rate (Hz); a job's deadline is when the next one is due.

    Args:
        phases: when the first job of each part is due, as a fraction of its period, 0 to 1.
    """
    times = [
        (phase + np.arange(np.ceil(horizon * rate - phase))) / rate for rate, phase in zip(rates, phases, strict=True)
    ]
    part = np.repeat(np.arange(len(times)), [len(own) for own in times])
    at = np.concatenate([*times, np.empty(0)])
    order = np.argsort(at, kind="stable")
    deadline = at + 1.0 / np.asarray(rates, np.float64)[part]
    return Arrivals(part[order], at[order], deadline[order], horizon)


@dataclass(frozen=True)
class Trace:
    """When each job of a schedule began and ended."""

    arrivals: Arrivals
    start: Float64Array
    finish: Float64Array

    @property
    def service(self) -> Float64Array:
        return self.finish - self.start

    @property
    def response(self) -> Float64Array:
        """Return the time from when a job was due, not from when it could begin, so that waiting counts."""
        return self.finish - self.arrivals.at

    @property
    def lateness(self) -> Float64Array:
        """Return how long after its deadline a job was done; 0 where it was in time."""
        result: Float64Array = np.maximum(self.finish - self.arrivals.deadline, 0.0)
        return result

    @property
    def missed(self) -> BoolArray:
        result: BoolArray = self.lateness > 0.0
        return result

    @property
    def utilisation(self) -> float:
        """Return the fraction of the time that periodic jobs keep the device busy; above 1 it cannot keep up."""
        # Each part's mean service by its period: how many of its jobs happen to lie before the horizon does not matter.
        periods = self.arrivals.deadline - self.arrivals.at
        fractions = self.service / periods
        return sum(float(fractions[self.arrivals.part == part].mean()) for part in np.unique(self.arrivals.part))

    @property
    def longest_queue(self) -> int:
        """Return the largest number of jobs that were due and not done at one time."""
        done = np.searchsorted(np.sort(self.finish), self.arrivals.at, side="right")
        due = np.arange(1, len(self.arrivals) + 1)
        return int((due - done).max(initial=0))

    def of(self, part: int) -> Trace:
        """Return the trace of one part's jobs."""
        own, all_of = self.arrivals.part == part, self.arrivals
        arrivals = Arrivals(all_of.part[own], all_of.at[own], all_of.deadline[own], all_of.horizon)
        return Trace(arrivals, self.start[own], self.finish[own])
