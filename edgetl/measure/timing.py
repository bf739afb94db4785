"""Timing as a paired experiment: all candidates in interleaved rounds, in one process, loaded anew again and again.

Whatever slows the machine down hits all candidates of a round alike, so ratios are taken round by round. Where in
memory an engine happens to lie makes it a little faster or slower than its own copy for as long as it lies there
(Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013): so all are loaded several times, in an order
drawn anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from edgetl.arrays import Float64Array

Workload = Callable[[], object]
Load = Callable[[Sequence[str], int], Mapping[str, Workload]]
"""Takes the candidates, in the order in which to load them, and how often that was done; returns a call for each."""

StateT = TypeVar("StateT")

_NS_PER_MS = 1e6
# Warming up goes on while a window is faster than the one before by more than 2 %, for ten times its usual length.
_STILL_FASTER = 0.98
_LONGEST_WARM_UP = 10
# Measuring takes at least so many times as long as loading did: at most a quarter of the time goes into loading.
_TIMES_LOADING = 3
# A call before a slice refills the caches. Longer calls do so in their own first part, and one more costs too much.
_SETTLES_BELOW_MS = 50.0
# Each loading has a level of its own: from fewer of them the spread of levels is not seen.
_FEWEST_LOADINGS = 4


@runtime_checkable
class DeviceTimedCall(Protocol):
    """A call that knows the parts of its time, as the device measures them."""

    def take_device_times(self) -> Float64Array:
        """Return milliseconds of every call since they were last taken: calls x (H2D, compute, D2H, enqueue)."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to measure: until the caller has seen enough, at most ``seconds``, but never fewer than ``min_rounds``.

    A round gives every candidate ``slice_ms`` in an order drawn anew. After ``load_rounds`` rounds, or three times the
    time that loading took, all candidates are loaded anew.
    """

    seconds: float = 10.0
    warmup_ms: float = 200.0
    slice_ms: float = 10.0
    min_rounds: int = 20
    max_rounds: int = 2000
    load_rounds: int = 16
    seed: int = 0


@dataclass(frozen=True)
class LatencySamples:
    """All times of one candidate in milliseconds, rounds x repeats; and their parts where the device measures them.

    ``device_times`` are rounds * repeats x (H2D, compute, D2H, enqueue). ``warm`` is false where the candidate was
    still becoming faster when measuring began.
    """

    times: Float64Array
    device_times: Float64Array | None = None
    warm: bool = True

    @property
    def per_round(self) -> Float64Array:
        result: Float64Array = np.median(self.times, axis=1)
        return result


@dataclass(frozen=True)
class Measurement(Generic[StateT]):
    """The samples by candidate, and what the machine was like after every round."""

    samples: dict[str, LatencySamples]
    states: tuple[StateT, ...] = ()
    loadings: int = 1


@dataclass
class _Candidate:
    repeats: int = 0
    settles: bool = True
    warm: bool = True
    times: list[Float64Array] = field(default_factory=list)
    parts: list[Float64Array] = field(default_factory=list)

    @property
    def samples(self) -> LatencySamples:
        parts = np.concatenate(self.parts) if self.parts else None
        return LatencySamples(np.stack(self.times), parts, self.warm)

    def warm_up(self, call: Workload, plan: TimingPlan) -> None:
        """Call until warm: for ``plan.warmup_ms``, and then until it no longer becomes faster."""
        again = self.repeats > 0
        # A quarter of that is enough on later loadings: clocks are up, and what compiles at first use has done so.
        window_ms = plan.warmup_ms / (16 if again else 4)
        before, last, windows = np.inf, np.inf, 0
        while windows < 4 or (last < _STILL_FASTER * before and windows < 4 * _LONGEST_WARM_UP):
            times: list[float] = []
            begin = time.perf_counter()
            while not times or (time.perf_counter() - begin) * 1e3 < window_ms:
                times.extend(time_calls(call, 1))
            before, last, windows = last, float(np.median(times)), windows + 1
        if not again:
            self.warm = last >= _STILL_FASTER * before
            self.settles = last < _SETTLES_BELOW_MS
            self.repeats = max(1, round(plan.slice_ms / last))

    def measure(self, call: Workload) -> None:
        """Time one slice."""
        if self.settles:
            # On a device an engine has the caches to itself; here another one had them a moment ago.
            call()
        parted = call if isinstance(call, DeviceTimedCall) else None
        if parted is not None:
            # Times of the calls before, which are not part of the slice.
            parted.take_device_times()
        self.times.append(time_calls(call, self.repeats))
        if parted is not None:
            self.parts.append(parted.take_device_times())


def never(per_round: Mapping[str, Float64Array]) -> bool:
    """Return false: for measurements that take all of their time."""
    del per_round
    return False


def measure(
    names: Sequence[str],
    load: Load,
    plan: TimingPlan,
    enough: Callable[[Mapping[str, Float64Array]], bool] = never,
    watch: Callable[[float], object] = bool,
    probe: Callable[[], StateT] | None = None,
) -> Measurement[StateT]:
    """Time the candidates, and return their samples.

    Args:
        enough: gets the medians of every round, ms, at each loading after the fourth; true ends the measurement.
        watch: gets the fraction of the work that is done after every round.
        probe: is asked after every round what the machine is like.
    """
    session = _Session(names, load, plan, watch, probe)
    for loading in count(1):
        session.loading()
        known = loading >= _FEWEST_LOADINGS and session.rounds >= plan.min_rounds and enough(session.medians)
        if session.over or known:
            break
    watch(1.0)
    samples = {name: candidate.samples for name, candidate in session.found.items()}
    return Measurement(samples, tuple(session.states), session.loadings)


class _Session(Generic[StateT]):
    """The state of a measurement."""

    def __init__(
        self,
        names: Sequence[str],
        load: Load,
        plan: TimingPlan,
        watch: Callable[[float], object],
        probe: Callable[[], StateT] | None,
    ) -> None:
        self._load, self._plan, self._watch, self._probe = load, plan, watch, probe
        self._rng, self._begin = np.random.default_rng(plan.seed), time.perf_counter()
        self.found = {name: _Candidate() for name in names}
        self.states: list[StateT] = []
        self.rounds = self.loadings = 0

    @property
    def medians(self) -> dict[str, Float64Array]:
        return {name: np.array([np.median(times) for times in one.times]) for name, one in self.found.items()}

    @property
    def over(self) -> bool:
        late = time.perf_counter() - self._begin >= self._plan.seconds
        return self.rounds >= self._plan.max_rounds or (late and self.rounds >= self._plan.min_rounds)

    def loading(self) -> None:
        """Load all candidates, and measure rounds of them for a while. What was loaded is let go at the end."""
        started = time.perf_counter()
        order = self._drawn()
        calls = self._load(order, self.loadings)
        self.loadings += 1
        for name in order:
            self.found[name].warm_up(calls[name], self._plan)
        loaded = time.perf_counter()
        least = loaded + _TIMES_LOADING * (loaded - started)
        for number in count(1):
            for name in self._drawn():
                self.found[name].measure(calls[name])
            self.rounds += 1
            if self._probe is not None:
                self.states.append(self._probe())
            spent = (time.perf_counter() - self._begin) / self._plan.seconds
            self._watch(min(spent, self.rounds / self._plan.min_rounds, 1.0))
            if self.over or (number >= self._plan.load_rounds and time.perf_counter() >= least):
                return

    def _drawn(self) -> list[str]:
        names = list(self.found)
        return [names[position] for position in self._rng.permutation(len(names))]


def time_calls(call: Workload, repeats: int) -> Float64Array:
    """Return the milliseconds of each of ``repeats`` calls."""
    stamps = np.empty(repeats + 1, dtype=np.int64)
    stamps[0] = time.perf_counter_ns()
    for number in range(1, repeats + 1):
        call()
        stamps[number] = time.perf_counter_ns()
    result: Float64Array = np.diff(stamps) / _NS_PER_MS
    return result
