"""What holds of every verdict, on random studies."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgetl.artifacts.results import Comparison, DeploymentResult
from edgetl.config import BudgetSettings
from edgetl.report.verdict import decide

NAMES = ("combined", "combined@layer3", "shared", "branched@layer3", "one-vs-rest", "cascade", "specialised")
TITLES = st.tuples(st.sampled_from(NAMES), st.sampled_from(("fp32", "fp16", "int8")))
BUDGETS = st.builds(
    BudgetSettings,
    max_accuracy_drop=st.none() | st.floats(0.0, 0.1),
    min_accuracy=st.none() | st.floats(0.8, 1.0),
    max_latency_ms=st.none() | st.floats(0.5, 8.0),
    max_memory_mb=st.none() | st.floats(40.0, 60.0),
    max_energy_mj=st.none() | st.floats(1.0, 5.0),
)


@st.composite
def studies(draw: st.DrawFn, make: SimpleNamespace) -> tuple[list[DeploymentResult], list[Comparison]]:
    """Rows of few distinct figures, so that ties are common, some of them unstable, unsupported or not compared."""
    rows = []
    for name, precision in draw(st.lists(TITLES, min_size=1, max_size=7, unique=True)):
        share, p50 = draw(st.integers(170, 200)) / 200, draw(st.sampled_from((1.0, 1.01, 2.0, 4.0, 7.9)))
        row = make.row(name, precision, share, p50, draw(st.sampled_from((1.0, 5.0))), draw(st.integers(1, 3)))
        cuts = {"combined": name.partition("@")[2] or "top"}
        row = row.model_copy(update={"energy_mj": draw(st.none() | st.floats(0.5, 6.0)), "cuts": cuts})
        row = make.unstable(row) if draw(st.booleans()) else row
        if draw(st.integers(0, 4)) == 0:
            row = DeploymentResult(name=name, precision=precision, runtime="onnxruntime", unsupported="no kernel")
        rows.append(row)
    pairs = make.compare(rows, draw(st.sampled_from((0.0, 0.004, 0.03))), draw(st.sampled_from((0.0, 0.02, 0.6))))
    return rows, [pair for pair in pairs if draw(st.integers(0, 5))]


def meets(row: DeploymentResult, rows: list[DeploymentResult], pairs: list[Comparison], budget: BudgetSettings) -> bool:
    """Every limit by its point estimate, written down a second time."""
    assert row.accuracy and row.latency_ms
    share = row.accuracy.overall.value
    drop = max(other.accuracy.overall.value for other in rows if other.accuracy) - share
    limited = budget.max_accuracy_drop is not None or budget.min_accuracy is not None
    undecided = any(
        pair.metric == "accuracy" and row.title in (pair.a, pair.b) and pair.low <= 0.0 <= pair.high for pair in pairs
    )
    return (
        (limited or drop < 0.01 or undecided)
        and (budget.max_accuracy_drop is None or drop <= budget.max_accuracy_drop + 1e-6)
        and (budget.min_accuracy is None or share >= budget.min_accuracy - 1e-6)
        and (budget.max_latency_ms is None or row.latency_ms.p50 <= budget.max_latency_ms)
        and (budget.max_memory_mb is None or (row.memory_mb or 1e9) <= budget.max_memory_mb)
        and (budget.max_energy_mj is None or (row.energy_mj or 1e9) <= budget.max_energy_mj)
    )


@given(st.data(), BUDGETS)
def test_a_verdict_is_of_what_ran_and_meets_limits(
    make: SimpleNamespace, data: st.DataObject, budget: BudgetSettings
) -> None:
    rows, pairs = data.draw(studies(make))
    verdict = decide(rows, pairs, budget)
    named = [row for row in rows if (row.name, row.precision) == (verdict.deployment, verdict.precision)]
    assert len(named) == verdict.budget_met
    for row in named:
        assert row.unsupported is None
        assert meets(row, rows, pairs, budget)
        assert row.latency_ms
        assert row.latency_ms.stable or not verdict.stable


@given(st.data(), BUDGETS)
def test_the_order_of_the_rows_does_not_matter(
    make: SimpleNamespace, data: st.DataObject, budget: BudgetSettings
) -> None:
    rows, pairs = data.draw(studies(make))
    assert decide(data.draw(st.permutations(rows)), pairs, budget) == decide(rows, pairs, budget)


@pytest.mark.slow
@given(st.data(), BUDGETS, st.floats(1e-3, 0.2), st.floats(1.001, 5.0), st.booleans())
def test_a_strictly_worse_candidate_never_changes_who_wins(
    make: SimpleNamespace, data: st.DataObject, budget: BudgetSettings, loss: float, slowdown: float, stable: bool
) -> None:
    rows, pairs = data.draw(studies(make))
    before = decide(rows, pairs, budget)
    assume(before.budget_met)
    winner = next(row for row in rows if (row.name, row.precision) == (before.deployment, before.precision))
    assert winner.accuracy and winner.latency_ms and winner.memory_mb
    worse = make.row(
        "zz-worse",
        winner.precision,
        winner.accuracy.overall.value - loss,
        winner.latency_ms.p50 * slowdown,
        20.0,
        len(winner.engines) + 1,
    )
    worse = worse.model_copy(update={"energy_mj": winner.energy_mj})
    if not (stable and winner.latency_ms.stable):
        worse = make.unstable(worse)
    against = [pair for pair in make.compare([*rows, worse], 0.004) if worse.title in (pair.a, pair.b)]
    after = decide([*rows, worse], [*pairs, *(pair for pair in against if data.draw(st.booleans()))], budget)
    assert (after.deployment, after.precision) == (before.deployment, before.precision)
