"""Energy of an inference: the power while it runs minus that of the idle machine, divided by how often it ran.

It is measured after latency, because reading power sensors takes time on the processor. Candidates take turns in
rounds, each between two rests: a machine that warms up is then idle as warm as it is busy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

import numpy as np

from edgetl.artifacts.measurements import Energy, RailPower
from edgetl.measure import bootstrap
from edgetl.measure.power import Meter

Watts = Mapping[str, float]

# Seconds: a shorter turn has too few readings of a meter that is read every 50 ms.
_LEAST_WORK = 0.3
# As a fraction of the power at rest: no meter resolves less.
_LEAST_RISE = 1e-3


@dataclass(frozen=True)
class EnergyPlan:
    """Seconds of work and of rest; ``settle`` of each is not counted, while clocks and regulators follow the load.

    ``period`` is 50 ms because a monitor on the I2C bus takes some milliseconds to read, and drivers renew their
    figures no faster.
    """

    rounds: int = 6
    work: float = 1.0
    rest: float = 0.5
    settle: float = 0.2
    period: float = 0.05
    seed: int = 0

    @classmethod
    def within(cls, seconds: float, candidates: int, seed: int) -> EnergyPlan:
        """Return a plan that takes about so many seconds, but no turn so short that no meter would show anything."""
        work = min(max(seconds / (cls.rounds * candidates), _LEAST_WORK), cls.work)
        return cls(work=work, rest=work / 2, seed=seed)


@dataclass(frozen=True)
class _Turn:
    begin: float
    end: float
    inferences: int


def measure_energy(
    candidates: Mapping[str, Callable[[], object]], meter: Meter, plan: EnergyPlan, watch: Callable[[], object] = bool
) -> dict[str, Energy]:
    """Return each candidate's energy for one call; ``watch`` is called after each round."""
    names, rng = list(candidates), np.random.default_rng(plan.seed)
    turns: dict[str, list[tuple[_Turn, _Turn, _Turn]]] = {name: [] for name in names}
    with Sampler(meter, plan.period) as sampler:
        for _ in range(plan.rounds):
            order = [names[position] for position in rng.permutation(len(names))]
            rests, works = [_rest(plan)], []
            for name in order:
                _repeat(candidates[name], plan.settle)
                works.append(_repeat(candidates[name], plan.work))
                rests.append(_rest(plan))
            for name, work, (before, after) in zip(order, works, pairwise(rests), strict=True):
                turns[name].append((before, work, after))
            watch()
    return {name: _energy(rounds, sampler, meter) for name, rounds in turns.items()}


def _rest(plan: EnergyPlan) -> _Turn:
    time.sleep(plan.settle)
    begin = time.perf_counter()
    time.sleep(plan.rest)
    return _Turn(begin, time.perf_counter(), 0)


def _repeat(call: Callable[[], object], seconds: float) -> _Turn:
    begin, done = time.perf_counter(), 0
    while (now := time.perf_counter()) - begin < seconds or not done:
        call()
        done += 1
    return _Turn(begin, max(now, time.perf_counter()), done)


def _energy(rounds: list[tuple[_Turn, _Turn, _Turn]], sampler: Sampler, meter: Meter) -> Energy:
    """Return the median over rounds. A round in which the meter did not answer is left out."""
    figures, idle, active, inferences = [], [], [], 0
    for before, work, after in rounds:
        first, busy, last = (sampler.between(turn.begin, turn.end) for turn in (before, work, after))
        if first is None or busy is None or last is None:
            continue
        # The mean of the rests before and after: a machine that warms up takes more power idle, too.
        calm = {name: (first[name] + last[name]) / 2 for name in first}
        idle.append(calm)
        active.append(busy)
        inferences += work.inferences
        seconds = (work.end - work.begin) / work.inferences
        figures.append(1e3 * seconds * sum(busy[name] - calm[name] for name in meter.total_of))
    if not figures:
        return Energy(source=meter.source, reason=f"the {meter.source} stopped answering, or answers too slowly")
    value, low, high = bootstrap.median(np.array(figures))
    return _described(meter, idle, active, (value, low, high), inferences)


def _described(
    meter: Meter, idle: Sequence[Watts], active: Sequence[Watts], figure: tuple[float, float, float], inferences: int
) -> Energy:
    rails = tuple(
        RailPower(name=name, idle_w=_median(idle, name), active_w=_median(active, name)) for name in meter.rails
    )
    whole = [rail for rail in rails if rail.name in meter.total_of]
    idle_w, active_w = round(sum(rail.idle_w for rail in whole), 4), round(sum(rail.active_w for rail in whole), 4)
    energy = Energy(
        source=meter.source,
        total_of=meter.total_of,
        idle_w=idle_w,
        active_w=active_w,
        rails=rails,
        inferences=inferences,
        rounds=len(idle),
    )
    value, low, high = figure
    if low > 0.0 and active_w - idle_w > _LEAST_RISE * idle_w:
        return energy.replaced(mj=value, low=low, high=high)
    unproven = "it is not proven that the machine takes more power at work than at rest"
    return energy.replaced(reason=f"{unproven}: other programs ran, or the meter is too coarse")


def _median(rounds: Sequence[Watts], name: str) -> float:
    return round(float(np.median([watts[name] for watts in rounds])), 4)


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
