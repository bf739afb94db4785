"""Each engine at its own rate, all of them on one device: does it keep up, and how late is the worst answer?

The load is open: when an inference is due does not depend on when the last one was done, and response counts from then.
A loop that waits for the answer before it asks again would leave out all the waiting (Tene 2013, coordinated omission).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.artifacts.measurements import CadencePart, CadenceResult, FigureInterval
from edgetl.measure.scenarios.clock import RealTimeRunner
from edgetl.measure.scenarios.executor import execute
from edgetl.measure.scenarios.figures import missed, over_rounds, percentile, pooled, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up
from edgetl.measure.scenarios.schedule import Arrivals, Trace, periodic

_LEAST_SECONDS = 0.5
_LEAST_PERIODS = 3


@dataclass(frozen=True)
class PeriodicWorkload:
    """A call that runs one inference, and how often it is due in a second."""

    call: Callable[[], object]
    rate_hz: float


PeriodicWorkloads = Mapping[str, PeriodicWorkload]


def measure_cadence(
    candidates: Mapping[str, PeriodicWorkloads], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> tuple[CadenceResult, ...]:
    """Run each candidate's schedule in interleaved rounds, with phases drawn anew for each.

    A candidate that needs more than the whole of the device's time is not run: its queue would grow without end, and
    every figure would only tell how long one waited for it.
    """
    needed = {title: _needed(parts, plan) for title, parts in candidates.items()}
    able = {title: parts for title, parts in candidates.items() if needed[title] <= 1.0}
    trials = {title: _trial(parts, np.random.default_rng(plan.seed)) for title, parts in able.items()}
    traces = interleave(trials, plan, on_progress)
    return tuple(
        _summary(title, parts, traces[title]) if title in able else _refusal(title, needed[title])
        for title, parts in candidates.items()
    )


def _needed(parts: PeriodicWorkloads, plan: ScenarioPlan) -> float:
    """The share of the device's time that the parts ask for."""
    return sum(paced.rate_hz * warm_up(paced.call, plan) for paced in parts.values())


def schedule(parts: PeriodicWorkloads, rng: np.random.Generator) -> Arrivals:
    """One round: some periods of the slowest part, and phases that are drawn."""
    rates = [paced.rate_hz for paced in parts.values()]
    horizon = max(_LEAST_SECONDS, _LEAST_PERIODS / min(rates))
    return periodic(rates, rng.random(len(rates)).tolist(), horizon)


def run_schedule(parts: PeriodicWorkloads, arrivals: Arrivals) -> Trace:
    """Run what is due when it is due."""
    calls = [paced.call for paced in parts.values()]
    return execute(arrivals, RealTimeRunner([calls[number] for number in arrivals.part]))


def _trial(parts: PeriodicWorkloads, rng: np.random.Generator) -> Callable[[], Trace]:
    return lambda: run_schedule(parts, schedule(parts, rng))


def _refusal(title: str, needed: float) -> CadenceResult:
    return CadenceResult(
        title=title,
        utilisation=FigureInterval(value=needed, low=needed, high=needed),
        unmet=f"it needs {needed:.0%} of the device's time; lower the rates or take a faster deployment",
        seconds=0.0,
        rounds=0,
        stable=True,
    )


def _summary(title: str, parts: PeriodicWorkloads, traces: Sequence[Trace]) -> CadenceResult:
    per_round = [trace.utilisation for trace in traces]
    utilisation, why = over_rounds(per_round), why_unstable(per_round)
    if utilisation.value > 1.0:
        return _refusal(title, utilisation.value)
    return CadenceResult(
        title=title,
        utilisation=utilisation,
        missed=missed([trace.missed for trace in traces]),
        parts=tuple(_part(number, name, paced, traces) for number, (name, paced) in enumerate(parts.items())),
        longest_queue=max(trace.longest_queue for trace in traces),
        seconds=sum(trace.arrivals.horizon for trace in traces),
        rounds=len(traces),
        stable=why is None,
        why_unstable=why,
    )


def _part(number: int, name: str, paced: PeriodicWorkload, traces: Sequence[Trace]) -> CadencePart:
    own = [trace.of(number) for trace in traces]
    response = [trace.response * 1e3 for trace in own]
    every = np.concatenate(response)
    return CadencePart(
        name=name,
        rate_hz=paced.rate_hz,
        service_ms=float(np.median(np.concatenate([trace.service for trace in own]))) * 1e3,
        missed=missed([trace.missed for trace in own]),
        response_p50_ms=float(np.median(every)),
        response_p99_ms=pooled(response, percentile(99)),
        response_worst_ms=float(every.max()),
        lateness_worst_ms=max(float(trace.lateness.max()) for trace in own) * 1e3,
    )
