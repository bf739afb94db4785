"""Rounds that are interleaved over the candidates: what all scenarios share."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
OnProgress = Callable[[float], object]


@dataclass(frozen=True)
class ScenarioPlan:
    """How long to measure a scenario: at least ``seconds`` and ``min_rounds``, of slices of ``slice_ms``."""

    seconds: float = 10.0
    warmup_ms: float = 200.0
    slice_ms: float = 50.0
    min_rounds: int = 10
    seed: int = 0


def interleave(
    trials: Mapping[Key, Callable[[], Result]], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> dict[Key, tuple[Result, ...]]:
    """Run every trial once in each round, in an order drawn anew, and return its results.

    Args:
        on_progress: gets the fraction of the work that is done after every round.
    """
    rng, names = np.random.default_rng(plan.seed), list(trials)
    results: dict[Key, list[Result]] = {name: [] for name in names}
    begin, number = time.perf_counter(), 0
    while trials:
        for position in rng.permutation(len(names)):
            results[names[position]].append(trials[names[position]]())
        number += 1
        done = min((time.perf_counter() - begin) / plan.seconds, number / plan.min_rounds)
        on_progress(min(done, 1.0))
        if done >= 1.0:
            break
    return {name: tuple(found) for name, found in results.items()}


def warm_up(call: Callable[[], object], plan: ScenarioPlan) -> float:
    """Call until warm, and return the median time of a call in seconds."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin) * 1e3 < plan.warmup_ms:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return float(np.median(times))
