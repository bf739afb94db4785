from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgetl.artifacts.results import Comparison, Measured, Results, Verdict
from edgetl.config import Budget
from edgetl.report.text import render_verdict
from edgetl.report.verdict import decide

WITHIN_A_POINT_AND_A_HALF = Budget(max_accuracy_drop=0.015)


def chosen(verdict: Verdict) -> str:
    return f"{verdict.deployment} {verdict.precision}"


def reason(verdict: Verdict, part: str) -> str:
    """The one reason that holds ``part``."""
    (found,) = [sentence for sentence in verdict.reasons if part in sentence]
    return found


def test_the_sample_study_gives_the_verdict_that_was_reviewed(results: Results, golden: Path) -> None:
    assert render_verdict(results.verdict, 98) == (golden / "verdict.txt").read_text().rstrip("\n")


def test_the_fastest_within_the_budget_is_chosen(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "fp32", 0.95, 4.0, 5),
        make.row("combined", "int8", 0.94, 2.0, 1),
        make.row("shared", "int8", 0.90, 1.0, 1),
    ]
    verdict = decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF)
    assert (chosen(verdict), verdict.budget_met, verdict.stable) == ("combined int8", True, True)


def test_candidates_that_cannot_be_told_apart_in_speed_are_settled_by_proven_accuracy(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 2.00, 5), make.row("specialised", "fp32", 0.94, 2.01, 9, engines=2)]
    verdict = decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF)
    assert chosen(verdict) == "specialised fp32"
    assert "Several specialised ones: specialised fp32" in reason(verdict, "One combined model or several")


def test_a_difference_that_no_interval_proves_goes_to_fewer_engines(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.938, 2.01, 5), make.row("specialised", "fp32", 0.94, 2.0, 9, engines=2)]
    verdict = decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF)
    assert chosen(verdict) == "combined fp32"
    assert "simplest (1 engine)" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("simpler", "other"),
    [
        (("combined", "int8"), ("shared", "fp32")),
        (("shared", "fp32"), ("one-vs-rest", "fp32")),
        (("one-vs-rest", "fp32"), ("specialised", "fp32")),
        (("combined", "fp32"), ("combined", "fp16")),
        (("combined", "fp16"), ("combined", "int8")),
    ],
)
def test_a_full_tie_goes_to_the_simpler_one(
    make: SimpleNamespace, simpler: tuple[str, str], other: tuple[str, str]
) -> None:
    rows = [make.row(*other, 0.93, 2.0, 1), make.row(*simpler, 0.93, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows), Budget())) == " ".join(simpler)


def test_a_faster_one_does_not_win_without_a_side_by_side_timing(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    pairs = [pair for pair in make.compare(rows) if pair.metric == "accuracy"]
    verdict = decide(rows, pairs, Budget())
    assert chosen(verdict) == "combined fp32"
    assert "not timed side by side" in reason(verdict, "INT8 for combined")


def test_a_comparison_counts_in_either_direction(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    assert decide(rows, make.compare(rows), Budget()) == decide(rows, make.compare(rows[::-1]), Budget())


def test_an_unstable_latency_never_wins_while_a_stable_candidate_is_within_the_budget(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.unstable(make.row("combined", "int8", 0.93, 2.0, 1))]
    assert chosen(decide(rows, make.compare(rows), Budget())) == "combined fp32"


def test_an_unstable_latency_that_could_not_win_anyway_leaves_the_verdict_stable(make: SimpleNamespace) -> None:
    rows = [make.unstable(make.row("shared", "fp32", 0.93, 8.0, 5)), make.row("combined", "int8", 0.93, 2.0, 1)]
    verdict = decide(rows, make.compare(rows), Budget())
    assert (chosen(verdict), verdict.stable) == ("combined int8", True)


def test_a_verdict_that_a_stable_timing_could_overturn_is_unstable_and_says_what_to_do(make: SimpleNamespace) -> None:
    rows = [
        make.row("specialised", "int8", 0.93, 4.0, 2, engines=2),
        make.unstable(make.row("combined", "int8", 0.93, 2.0, 1)),
    ]
    verdict = decide(rows, make.compare(rows), Budget())
    assert (chosen(verdict), verdict.stable) == ("specialised int8", False)
    assert "close other programs" in reason(verdict, "combined int8 may be the better choice")


def test_where_all_are_unstable_the_winner_is_marked_unstable(make: SimpleNamespace) -> None:
    rows = [make.unstable(make.row("combined", "fp32", 0.93, 4.0, 5))]
    verdict = decide(rows, [], Budget())
    assert (chosen(verdict), verdict.stable) == ("combined fp32", False)
    assert "p50 is only known to 9 %" in reason(verdict, "UNSTABLE")


def test_a_drop_within_the_budget_says_that_the_interval_proves_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.945, 2.0, 1)]
    verdict = decide(rows, make.compare(rows, half_width=0.004), Budget(max_accuracy_drop=0.01))
    assert "between 0.1 and 0.9 points below, all within the budget of 1.0" in reason(verdict, "Its accuracy")


def test_a_drop_that_is_not_proven_says_how_many_more_images_would_settle_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.945, 2.0, 1)]
    verdict = decide(rows, make.compare(rows, half_width=0.01), Budget(max_accuracy_drop=0.01))
    # Half of 1 point of half width is needed: four times the 2,000 images.
    assert "up to 1.5 points (about 6,000 more test images would settle it)" in reason(verdict, "Its accuracy")


def test_a_drop_of_exactly_the_limit_meets_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.92, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows), Budget(max_accuracy_drop=0.01))) == "combined int8"


def test_without_an_accuracy_limit_a_proven_drop_of_a_point_disqualifies(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows, half_width=0.01), Budget())) == "combined fp32"
    verdict = decide(rows, make.compare(rows, half_width=0.03), Budget())
    assert chosen(verdict) == "combined int8"
    assert "no drop is proven: it is between 1.0 points above and 5.0 points below" in reason(verdict, "Its accuracy")


def test_a_limit_on_what_was_not_measured_is_not_met(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5)]
    verdict = decide(rows, [], Budget(max_energy_mj=10.0))
    assert (verdict.deployment, verdict.precision, verdict.budget_met) == (None, None, False)
    assert "the limit on energy (10.0 mJ), because it was not measured" in reason(verdict, "The nearest")


def test_where_nothing_meets_the_budget_the_nearest_candidate_says_what_it_misses_by(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "fp32", 0.95, 4.0, 5),
        make.row("specialised", "fp32", 0.95, 9.0, 9, engines=2),
    ]
    verdict = decide(rows, make.compare(rows), Budget(max_latency_ms=3.0, min_accuracy=0.9))
    assert (verdict.deployment, verdict.budget_met) == (None, False)
    nearest = reason(verdict, "The nearest is combined fp32")
    assert "misses latency 4.00 of at most 3.00 ms (by 1.00)" in nearest
    assert "None of them meets the budget" in reason(verdict, "One combined model or several")


def test_shared_is_compared_with_both_answers_to_the_central_question(
    rows: list[Measured], make: SimpleNamespace
) -> None:
    rows[5] = make.row("shared", "int8", 0.95, 1.0, 1)
    answer = reason(decide(rows, make.compare(rows), Budget()), "One combined model or several specialised ones?")
    assert "Neither, but one shared trunk" in answer
    assert "combined int8" in answer
    assert "specialised int8" in answer


def test_the_central_question_stays_open_where_one_side_was_not_measured(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5)]
    answer = reason(decide(rows, [], Budget()), "One combined model or several")
    assert "This study cannot say: it has no measurement of specialised." in answer


def test_a_rival_that_misses_the_budget_is_said_to(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "int8", 0.90, 2.0, 1), make.row("specialised", "int8", 0.95, 4.0, 2, engines=2)]
    verdict = decide(rows, make.compare(rows), Budget(max_accuracy_drop=0.01))
    answer = reason(verdict, "One combined model or several")
    assert "combined int8 misses the budget (accuracy drop 5.0 of at most 1.0 points)" in answer


def test_where_nothing_was_run_the_reasons_say_why(rows: list[Measured]) -> None:
    verdict = decide([row for row in rows if row.unsupported], [], Budget())
    assert (verdict.deployment, verdict.budget_met, verdict.stable) == (None, False, False)
    assert "casting them to FP32" in reason(verdict, "Not run")


def test_reasons_are_single_printable_lines_whatever_the_runtime_said(
    rows: list[Measured], make: SimpleNamespace
) -> None:
    rows[-1] = rows[-1].model_copy(update={"unsupported": "\x1b[31mfailed\n\tat node 7" + " x" * 500})
    verdict = decide(rows, make.compare(rows), Budget())
    assert all(sentence.isprintable() and len(sentence) < 600 for sentence in verdict.reasons)


NAMES = ("combined", "shared", "one-vs-rest", "specialised")
TITLES = st.tuples(st.sampled_from(NAMES), st.sampled_from(("fp32", "fp16", "int8")))
BUDGETS = st.builds(
    Budget,
    max_accuracy_drop=st.none() | st.floats(0.0, 0.1),
    min_accuracy=st.none() | st.floats(0.8, 1.0),
    max_latency_ms=st.none() | st.floats(0.5, 8.0),
    max_memory_mb=st.none() | st.floats(40.0, 60.0),
    max_energy_mj=st.none() | st.floats(1.0, 5.0),
)


@st.composite
def studies(draw: st.DrawFn, make: SimpleNamespace) -> tuple[list[Measured], list[Comparison]]:
    """Rows of few distinct figures, so that ties are common, some of them unstable, unsupported or not compared."""
    rows = []
    for name, precision in draw(st.lists(TITLES, min_size=1, max_size=7, unique=True)):
        share, p50 = draw(st.integers(170, 200)) / 200, draw(st.sampled_from((1.0, 1.01, 2.0, 4.0, 7.9)))
        row = make.row(name, precision, share, p50, draw(st.sampled_from((1.0, 5.0))), draw(st.integers(1, 3)))
        row = row.model_copy(update={"energy_mj": draw(st.none() | st.floats(0.5, 6.0))})
        row = make.unstable(row) if draw(st.booleans()) else row
        if draw(st.integers(0, 4)) == 0:
            row = Measured(name=name, precision=precision, runtime="onnxruntime", unsupported="no kernel")
        rows.append(row)
    pairs = make.compare(rows, draw(st.sampled_from((0.0, 0.004, 0.03))), draw(st.sampled_from((0.0, 0.02, 0.6))))
    return rows, [pair for pair in pairs if draw(st.integers(0, 5))]


def meets(row: Measured, rows: list[Measured], pairs: list[Comparison], budget: Budget) -> bool:
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


@settings(deadline=None)
@given(st.data(), BUDGETS)
def test_a_verdict_only_names_what_was_run_and_meets_every_limit(
    make: SimpleNamespace, data: st.DataObject, budget: Budget
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


@settings(deadline=None)
@given(st.data(), BUDGETS)
def test_the_order_of_the_rows_does_not_matter(make: SimpleNamespace, data: st.DataObject, budget: Budget) -> None:
    rows, pairs = data.draw(studies(make))
    assert decide(data.draw(st.permutations(rows)), pairs, budget) == decide(rows, pairs, budget)


@settings(deadline=None)
@given(st.data(), BUDGETS, st.floats(1e-3, 0.2), st.floats(1.001, 5.0), st.booleans())
def test_a_strictly_worse_candidate_never_changes_who_wins(
    make: SimpleNamespace, data: st.DataObject, budget: Budget, loss: float, slowdown: float, stable: bool
) -> None:
    rows, pairs = data.draw(studies(make))
    before = decide(rows, pairs, budget)
    assume(before.budget_met)
    winner = next(row for row in rows if row.title == chosen(before))
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
    assert chosen(after) == chosen(before)
