"""A device that is simulated, event by event: what a schedule would do if inferences took so long.

A test holds it against the theory of queues and of schedules.
"""

from __future__ import annotations

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.measure.scenarios.executor import execute
from edgetl.measure.scenarios.schedule import Arrivals, Trace


def simulate(arrivals: Arrivals, service: Float64Array) -> Trace:
    """The trace of a schedule. Pure.

    Args:
        service: how long each job takes, in seconds.
    """
    return execute(arrivals, _SimulatedDevice(service))


class _SimulatedDevice:
    def __init__(self, service: Float64Array) -> None:
        self._service = service
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, when: float) -> None:
        self._now = when

    def serve(self, job: int) -> None:
        self._now += float(self._service[job])


def drawn(arrivals: Arrivals, measured: tuple[Float64Array, ...], rng: np.random.Generator) -> Float64Array:
    """Service times for the jobs of a schedule, drawn from those measured of each part."""
    service = np.empty(len(arrivals))
    for number, times in enumerate(measured):
        own = arrivals.part == number
        service[own] = rng.choice(times, size=int(own.sum()))
    return service
