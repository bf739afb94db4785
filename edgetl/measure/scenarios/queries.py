"""One query after the other: MLPerf's single-stream and multi-stream.

The rules of MLPerf Inference since version 2.0: a query is issued when the one before it is done; what counts is the
90th percentile of the latency of queries of one sample, and the 99th of queries of eight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.measurements import QueryResult
from edgetl.measure.scenarios.figures import percentile, pooled, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up

Stream = Literal["single-stream", "multi-stream"]

PERCENTILES: Mapping[Stream, int] = {"single-stream": 90, "multi-stream": 99}


@dataclass(frozen=True)
class Query:
    """A call that takes ``size`` images through a deployment, ``batch`` in each inference."""

    call: Callable[[], object]
    size: int = 1
    batch: int = 1


def measure_queries(
    scenario: Stream, candidates: Mapping[str, Query], plan: ScenarioPlan, on_progress: OnProgress = bool
) -> tuple[QueryResult, ...]:
    """Latency of queries, candidate by candidate in interleaved rounds."""
    trials = {
        title: partial(_slice, query.call, warm_up(query.call, plan), plan) for title, query in candidates.items()
    }
    measured = interleave(trials, plan, on_progress)
    return tuple(_summary(scenario, title, candidates[title], rounds, plan) for title, rounds in measured.items())


def _slice(call: Callable[[], object], expected: float, plan: ScenarioPlan) -> Float64Array:
    """The times of as many queries as are expected to fit, in milliseconds."""
    count = max(1, round(plan.slice_ms / 1e3 / expected))
    stamps = np.empty(count + 1)
    stamps[0] = time.perf_counter()
    for number in range(1, count + 1):
        call()
        stamps[number] = time.perf_counter()
    result: Float64Array = np.diff(stamps) * 1e3
    return result


def _summary(
    scenario: Stream, title: str, query: Query, rounds: tuple[Float64Array, ...], plan: ScenarioPlan
) -> QueryResult:
    why = why_unstable([float(np.median(one)) for one in rounds])
    return QueryResult(
        scenario=scenario,
        title=title,
        query_size=query.size,
        batch=query.batch,
        percentile=PERCENTILES[scenario],
        latency_ms=pooled(rounds, percentile(PERCENTILES[scenario]), plan.seed),
        queries=sum(len(one) for one in rounds),
        rounds=len(rounds),
        stable=why is None,
        why_unstable=why,
    )
