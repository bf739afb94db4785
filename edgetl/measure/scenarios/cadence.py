"""Cadence: each engine at its own rate, all of them on one device. Does it keep up, and how late is the worst answer?

The load is open: when an inference is due does not depend on when the last one was done, and response counts from then.
A loop that waits for the answer before it asks again would leave out all the waiting (Tene 2013, coordinated omission).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgetl.artifacts.measurements import CadencePart, CadenceResult, FigureInterval
from edgetl.measure.scenarios.executor import RealTimeRunner, execute
from edgetl.measure.scenarios.figures import missed, over_rounds, percentile, pooled, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up
from edgetl.measure.scenarios.schedule import Arrivals, Trace, periodic

# A round has some periods of the slowest part, so that the others run beside it more than once.
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
    """Run each candidate's schedule in interleaved rounds, with phases drawn anew for each."""
    # The fraction of the device's time that each candidate asks for.
    needed = {
        title: sum(paced.rate_hz * warm_up(paced.call, plan) for paced in parts.values())
        for title, parts in candidates.items()
    }
    # One that needs more than all of it is not run: its queue would grow without end, and so would every figure.
    able = {title: parts for title, parts in candidates.items() if needed[title] <= 1.0}
    trials = {}
    for title, parts in able.items():
        # A generator of its own: a candidate's phases do not depend on the others.
        rng = np.random.default_rng(plan.seed)
        trials[title] = partial(lambda parts, rng: run_schedule(parts, schedule(parts, rng)), parts, rng)
    traces = interleave(trials, plan, on_progress)
    return tuple(
        _summary(title, parts, traces[title]) if title in able else _refusal(title, needed[title])
        for title, parts in candidates.items()
    )


def schedule(parts: PeriodicWorkloads, rng: np.random.Generator) -> Arrivals:
    """Return the jobs of one round: some periods of the slowest part, and phases that are drawn."""
    rates = [paced.rate_hz for paced in parts.values()]
    horizon = max(_LEAST_SECONDS, _LEAST_PERIODS / min(rates))
    return periodic(rates, rng.random(len(rates)).tolist(), horizon)


def run_schedule(parts: PeriodicWorkloads, arrivals: Arrivals) -> Trace:
    """Run each job when it is due, and return when it began and ended."""
    calls = [paced.call for paced in parts.values()]
    return execute(arrivals, RealTimeRunner([calls[number] for number in arrivals.part]))


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
    # Under load a call may take longer than while warming up.
    if utilisation.value > 1.0:
        return _refusal(title, utilisation.value)
    results = []
    for number, (name, paced) in enumerate(parts.items()):
        own = [trace.of(number) for trace in traces]
        response = [trace.response * 1e3 for trace in own]
        results.append(
            CadencePart(
                name=name,
                rate_hz=paced.rate_hz,
                service_ms=float(np.median(np.concatenate([trace.service for trace in own]))) * 1e3,
                missed=missed([trace.missed for trace in own]),
                response_p50_ms=float(np.median(np.concatenate(response))),
                response_p99_ms=pooled(response, percentile(99)),
                response_worst_ms=float(np.concatenate(response).max()),
                lateness_worst_ms=max(float(trace.lateness.max()) for trace in own) * 1e3,
            )
        )
    return CadenceResult(
        title=title,
        utilisation=utilisation,
        missed=missed([trace.missed for trace in traces]),
        parts=tuple(results),
        longest_queue=max(trace.longest_queue for trace in traces),
        seconds=sum(trace.arrivals.horizon for trace in traces),
        rounds=len(traces),
        stable=why is None,
        why_unstable=why,
    )
