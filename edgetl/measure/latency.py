"""Latency as a paired experiment: all candidates in interleaved rounds, in one process.

Whatever slows the machine down hits all candidates of a round alike, so ratios are taken round by round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.results import Comparison, Latency
from edgetl.measure import bootstrap

Floats = npt.NDArray[np.float64]

_NS_PER_MS = 1e6
_WIDEST_INTERVAL = 0.05
_MOST_DRIFT = 0.05


@dataclass(frozen=True)
class Plan:
    """How long to measure. A round gives every candidate ``slice_ms`` in an order drawn anew."""

    seconds: float = 10.0
    warmup_ms: float = 200.0
    slice_ms: float = 20.0
    min_rounds: int = 20
    max_rounds: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """All times of one candidate in milliseconds: rounds x repeats."""

    times: Floats

    @property
    def per_round(self) -> Floats:
        result: Floats = np.median(self.times, axis=1)
        return result


def measure(
    candidates: Mapping[str, Callable[[], object]],
    plan: Plan,
    watch: Callable[[float], object] = bool,
) -> dict[str, Samples]:
    """Time the candidates.

    Ends when ``plan.seconds`` are over and at least ``min_rounds`` were made, so that a slow machine takes longer
    rather than answering from few rounds.

    Args:
        watch: is told the share of the work that is done after every round.
    """
    repeats = {name: _warm_up(call, plan) for name, call in candidates.items()}
    rng = np.random.default_rng(plan.seed)
    names = list(candidates)
    times: dict[str, list[Floats]] = {name: [] for name in names}
    begin = time.perf_counter()
    for number in range(plan.max_rounds):
        for position in rng.permutation(len(names)):
            name = names[position]
            times[name].append(_time(candidates[name], repeats[name]))
        elapsed = (time.perf_counter() - begin) / plan.seconds
        watch(min(elapsed, (number + 1) / plan.min_rounds, 1.0))
        if elapsed >= 1.0 and number + 1 >= plan.min_rounds:
            break
    return {name: Samples(np.stack(rounds)) for name, rounds in times.items()}


def _warm_up(call: Callable[[], object], plan: Plan) -> int:
    """Run until warm; return how often the candidate fits in a slice."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin) * 1e3 < plan.warmup_ms:
        times.extend(_time(call, 1))
    return max(1, round(plan.slice_ms / float(np.median(times))))


def _time(call: Callable[[], object], repeats: int) -> Floats:
    """``repeats`` times in milliseconds."""
    stamps = np.empty(repeats + 1, dtype=np.int64)
    stamps[0] = time.perf_counter_ns()
    for number in range(1, repeats + 1):
        call()
        stamps[number] = time.perf_counter_ns()
    result: Floats = np.diff(stamps) / _NS_PER_MS
    return result


def summarise(samples: Samples) -> Latency:
    """Percentiles over all samples, the interval of the median over rounds, and whether to trust them."""
    flat = np.sort(samples.times, axis=None)
    per_round = samples.per_round
    _, low, high = bootstrap.median(per_round)
    p50 = float(np.median(flat))
    why = _why_unstable(per_round, p50, low, high)
    return Latency(
        p50=p50,
        p90=_percentile(flat, 90),
        p99=_percentile(flat, 99),
        mean=float(flat.mean()),
        low=min(low, p50),
        high=max(high, p50),
        samples=flat.size,
        rounds=len(per_round),
        stable=why is None,
        why_unstable=why,
    )


def _percentile(ordered: Floats, percent: int) -> float:
    """As trtexec takes it: the sample that ``percent`` of all samples do not exceed, no interpolation.

    In whole numbers, because ``(1 - 0.9) * 10`` is a little less than one.
    """
    return float(ordered[max(len(ordered) - 1 - (100 - percent) * len(ordered) // 100, 0)])


def _why_unstable(per_round: Floats, p50: float, low: float, high: float) -> str | None:
    width = (high - low) / p50
    if width > _WIDEST_INTERVAL:
        return f"the interval of the median is {width:.0%} of it, more than {_WIDEST_INTERVAL:.0%}"
    third = max(1, len(per_round) // 3)
    drift = float(np.median(per_round[-third:]) / np.median(per_round[:third])) - 1.0
    if abs(drift) > _MOST_DRIFT:
        return f"it drifted by {drift:+.0%} from the first third of the rounds to the last"
    return None


def ratio(a: Samples, b: Samples) -> tuple[float, float, float]:
    """Median over rounds of a's time by b's, and its interval."""
    return bootstrap.median(a.per_round / b.per_round)


def compare(samples: Mapping[str, Samples]) -> tuple[Comparison, ...]:
    """The ratio of every pair."""
    comparisons = []
    for a, b in combinations(samples, 2):
        value, low, high = ratio(samples[a], samples[b])
        comparisons.append(Comparison(a=a, b=b, metric="latency", ratio=value, low=low, high=high))
    return tuple(comparisons)
