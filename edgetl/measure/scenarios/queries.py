"""Single-stream and multi-stream, as MLPerf has them: one query after the other.

The rules of MLPerf Inference since version 2.0: a query is issued when the one before it is done; what counts is the
90th percentile of the latency of queries of one sample, and the 99th of queries of eight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from edgetl.artifacts.measurements import QueryResult
from edgetl.measure.scenarios.figures import percentile, pooled, why_unstable
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan, interleave, warm_up
from edgetl.measure.timing import time_calls

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
    """Return the latency of each candidate's queries, measured in interleaved rounds."""
    trials = {}
    for title, query in candidates.items():
        # As many queries in a slice as are expected to fit.
        count = max(1, round(plan.slice_ms / 1e3 / warm_up(query.call, plan)))
        trials[title] = partial(time_calls, query.call, count)
    results = []
    for title, rounds in interleave(trials, plan, on_progress).items():
        why = why_unstable([float(np.median(one)) for one in rounds])
        results.append(
            QueryResult(
                scenario=scenario,
                title=title,
                query_size=candidates[title].size,
                batch=candidates[title].batch,
                percentile=PERCENTILES[scenario],
                latency_ms=pooled(rounds, percentile(PERCENTILES[scenario]), plan.seed),
                queries=sum(len(one) for one in rounds),
                rounds=len(rounds),
                stable=why is None,
                why_unstable=why,
            )
        )
    return tuple(results)
