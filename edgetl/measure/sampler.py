"""Mean power over a time span, from a meter that a thread reads at a period of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from edgetl.measure.power import Meter


@dataclass(frozen=True)
class PowerReading:
    """What the rails read, watts or joules, between two moments of `time.perf_counter`.

    Reading takes a while: half a millisecond for each register of an INA3221.
    """

    begin: float
    end: float
    values: Mapping[str, float]

    @property
    def seconds(self) -> float:
        return (self.begin + self.end) / 2


class Sampler:
    """Reads a meter while its context is open; ``between`` gives the power of time spans inside."""

    def __init__(self, meter: Meter, period: float) -> None:
        self._meter, self._period = meter, period
        self._samples: list[PowerReading] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="edgetl-power", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> dict[str, float] | None:
        """Return each rail's mean watts from ``begin`` to ``end``; None where fewer than two samples lie inside."""
        inside = [sample for sample in list(self._samples) if begin <= sample.begin and sample.end <= end]
        return mean_watts(inside, self._meter)

    def _sample(self) -> None:
        due = time.perf_counter()
        while not self._over.is_set():
            begin = time.perf_counter()
            values = {name: read() for name, read in self._meter.rails.items()}
            known = {name: value for name, value in values.items() if value is not None}
            # A moment in which one rail did not answer is left out, or the sum of the rails would be too small.
            if len(known) == len(values):
                self._samples.append(PowerReading(begin, time.perf_counter(), known))
            # The period is kept on average; where reading takes longer than it, nothing is caught up.
            due = max(due + self._period, time.perf_counter())
            self._over.wait(due - time.perf_counter())


def mean_watts(samples: Sequence[PowerReading], meter: Meter) -> dict[str, float] | None:
    """Return each rail's energy from the first sample to the last, by the time between; None for fewer than two."""
    if len(samples) < 2 or samples[-1].seconds <= samples[0].seconds:
        return None
    seconds = np.array([sample.seconds for sample in samples])
    span = float(seconds[-1] - seconds[0])
    watts = {}
    for name in meter.rails:
        values = np.array([sample.values[name] for sample in samples])
        if meter.counts:
            # A counter that fell has begun anew.
            steps = np.diff(values)
            joules = np.where(steps < 0, steps + (meter.wraps or {}).get(name, 0.0), steps)
        else:
            joules = (values[1:] + values[:-1]) / 2 * np.diff(seconds)
        watts[name] = float(joules.sum()) / span
    return watts
