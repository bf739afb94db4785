from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetl.artifacts.measurements import Energy
from edgetl.artifacts.results import DeploymentResult, Results, Verdict
from edgetl.config import BudgetSettings
from edgetl.report.text import render_verdict
from edgetl.report.verdict import decide

WITHIN_A_POINT_AND_A_HALF = BudgetSettings(max_accuracy_drop=0.015)


def chosen(verdict: Verdict) -> str:
    return f"{verdict.deployment} {verdict.precision}"


def reason(verdict: Verdict, part: str) -> str:
    """The one reason that holds ``part``."""
    (found,) = [sentence for sentence in verdict.reasons if part in sentence]
    return found


def test_the_sample_study_gives_the_verdict_that_was_reviewed(results: Results, golden: Path) -> None:
    assert render_verdict(results.verdict, 98) == (golden / "verdict.txt").read_text().rstrip("\n")


def test_the_swept_study_gives_the_verdict_that_was_reviewed(swept: Results, golden: Path) -> None:
    assert render_verdict(swept.verdict, 98) == (golden / "swept_verdict.txt").read_text().rstrip("\n")


def test_the_study_of_detectors_gives_the_verdict_that_was_reviewed(detected: Results, golden: Path) -> None:
    assert render_verdict(detected.verdict, 98) == (golden / "detected_verdict.txt").read_text().rstrip("\n")


def test_the_metric_changes_the_words_and_not_who_wins(rows: list[DeploymentResult], make: SimpleNamespace) -> None:
    budgets = (
        BudgetSettings(),
        BudgetSettings(max_accuracy_drop=0.005),
        BudgetSettings(min_accuracy=0.9),
        BudgetSettings(min_accuracy=0.99),
    )
    for budget in budgets:
        pairs = make.compare(rows)
        classified, detected = decide(rows, pairs, budget), decide(rows, pairs, budget, "mAP@0.5")
        assert (classified.deployment, classified.precision) == (detected.deployment, detected.precision)
        assert len(classified.reasons) == len(detected.reasons)
        assert "accura" in " ".join(classified.reasons)
        assert "accura" not in " ".join(detected.reasons)
        assert "mAP@0.5" not in " ".join(classified.reasons)


def test_detectors_that_were_not_compared_are_told_apart_by_their_own_figures(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.945, 2.0, 1)]
    verdict = decide(rows, [], BudgetSettings(max_accuracy_drop=0.01), "mAP@0.5")
    assert "94.5 % in mAP@0.5 against 95.0 % (not compared on the same images)" in reason(verdict, "INT8 for combined")


def test_the_fastest_within_the_budget_is_chosen(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "fp32", 0.95, 4.0, 5),
        make.row("combined", "int8", 0.94, 2.0, 1),
        make.row("shared", "int8", 0.90, 1.0, 1),
    ]
    verdict = decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF)
    assert (chosen(verdict), verdict.budget_met, verdict.stable) == ("combined int8", True, True)


def test_equal_speed_is_settled_by_proven_accuracy(make: SimpleNamespace) -> None:
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
        (("one-vs-rest", "fp32"), ("branched@features.7", "fp32")),
        (("branched@features.7", "fp32"), ("cascade", "fp32")),
        (("cascade", "fp32"), ("specialised", "fp32")),
        (("combined@features.7", "int8"), ("shared", "fp32")),
        (("combined", "fp32"), ("combined", "fp16")),
        (("combined", "fp16"), ("combined", "int8")),
    ],
)
def test_a_full_tie_goes_to_the_simpler_one(
    make: SimpleNamespace, simpler: tuple[str, str], other: tuple[str, str]
) -> None:
    rows = [make.row(*other, 0.93, 2.0, 1), make.row(*simpler, 0.93, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows), BudgetSettings())) == " ".join(simpler)


def test_a_faster_one_does_not_win_without_a_side_by_side_timing(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    pairs = [pair for pair in make.compare(rows) if pair.metric == "accuracy"]
    verdict = decide(rows, pairs, BudgetSettings())
    assert chosen(verdict) == "combined fp32"
    assert "not timed side by side" in reason(verdict, "INT8 for combined")


def test_a_comparison_counts_in_either_direction(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    assert decide(rows, make.compare(rows), BudgetSettings()) == decide(
        rows, make.compare(rows[::-1]), BudgetSettings()
    )


def test_an_unstable_latency_never_wins_over_a_stable_candidate(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.unstable(make.row("combined", "int8", 0.93, 2.0, 1))]
    assert chosen(decide(rows, make.compare(rows), BudgetSettings())) == "combined fp32"


def test_an_unstable_latency_that_cannot_win_leaves_the_verdict_stable(make: SimpleNamespace) -> None:
    rows = [make.unstable(make.row("shared", "fp32", 0.93, 8.0, 5)), make.row("combined", "int8", 0.93, 2.0, 1)]
    verdict = decide(rows, make.compare(rows), BudgetSettings())
    assert (chosen(verdict), verdict.stable) == ("combined int8", True)


def test_a_verdict_that_stable_timing_could_overturn_is_unstable(make: SimpleNamespace) -> None:
    rows = [
        make.row("specialised", "int8", 0.93, 4.0, 2, engines=2),
        make.unstable(make.row("combined", "int8", 0.93, 2.0, 1)),
    ]
    verdict = decide(rows, make.compare(rows), BudgetSettings())
    assert (chosen(verdict), verdict.stable) == ("specialised int8", False)
    assert "close other programs" in reason(verdict, "combined int8 may be the better choice")


def test_a_ratio_that_changed_while_it_was_measured_proves_nothing(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    pairs = [
        pair if pair.metric == "accuracy" else pair.model_copy(update={"why_unstable": "it changed by +9%"})
        for pair in make.compare(rows)
    ]
    for every in (pairs, pairs[::-1]):
        verdict = decide(rows, every, BudgetSettings())
        assert chosen(verdict) == "combined fp32"
        assert "UNSTABLE: their ratio" in reason(verdict, "INT8 for combined")


def test_a_stable_ratio_of_unstable_latencies_proves_who_is_faster(make: SimpleNamespace) -> None:
    rows = [
        make.unstable(make.row("combined", "fp32", 0.93, 2.0, 5)),
        make.unstable(make.row("specialised", "fp32", 0.93, 6.0, 5, engines=3)),
        make.unstable(make.row("combined", "int8", 0.93, 1.0, 1)),
    ]
    verdict = decide(rows, make.compare(rows), BudgetSettings())
    assert (chosen(verdict), verdict.stable) == ("combined int8", False)
    assert "times as fast as specialised fp32" in reason(verdict, "One combined model or several specialised ones?")
    assert "ratios are measured side by side and hold" in reason(verdict, "UNSTABLE")


def test_where_all_are_unstable_the_winner_is_marked_unstable(make: SimpleNamespace) -> None:
    rows = [make.unstable(make.row("combined", "fp32", 0.93, 4.0, 5))]
    verdict = decide(rows, [], BudgetSettings())
    assert (chosen(verdict), verdict.stable) == ("combined fp32", False)
    assert "p50 is only known to 9 %" in reason(verdict, "UNSTABLE")


def test_a_drop_within_the_budget_says_that_the_interval_proves_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.945, 2.0, 1)]
    verdict = decide(rows, make.compare(rows, half_width=0.004), BudgetSettings(max_accuracy_drop=0.01))
    assert "between 0.1 and 0.9 points below, all within the budget of 1.0" in reason(verdict, "Its accuracy")


def test_a_drop_that_is_not_proven_says_how_many_more_images_would_settle_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.945, 2.0, 1)]
    verdict = decide(rows, make.compare(rows, half_width=0.01), BudgetSettings(max_accuracy_drop=0.01))
    # Half of 1 point of half width is needed: four times the 2,000 images.
    assert "up to 1.5 points (about 6,000 more test images would settle it)" in reason(verdict, "Its accuracy")


def test_a_drop_of_exactly_the_limit_meets_it(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.93, 4.0, 5), make.row("combined", "int8", 0.92, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows), BudgetSettings(max_accuracy_drop=0.01))) == "combined int8"


def test_without_an_accuracy_limit_a_proven_drop_of_a_point_disqualifies(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5), make.row("combined", "int8", 0.93, 2.0, 1)]
    assert chosen(decide(rows, make.compare(rows, half_width=0.01), BudgetSettings())) == "combined fp32"
    verdict = decide(rows, make.compare(rows, half_width=0.03), BudgetSettings())
    assert chosen(verdict) == "combined int8"
    assert "no drop is proven: it is between 1.0 points above and 5.0 points below" in reason(verdict, "Its accuracy")


def test_a_limit_on_what_was_not_measured_is_not_met(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5)]
    verdict = decide(rows, [], BudgetSettings(max_energy_mj=10.0))
    assert (verdict.deployment, verdict.precision, verdict.budget_met) == (None, None, False)
    assert "the limit on energy (10.0 mJ), because it was not measured" in reason(verdict, "The nearest")


def test_the_machines_reason_for_telling_no_energy_is_handed_on(make: SimpleNamespace) -> None:
    silent = make.row("combined", "fp32", 0.95, 4.0, 5).model_copy(update={"energy": Energy(reason="no meter is here")})
    verdict = decide([silent], [], BudgetSettings(max_energy_mj=10.0))
    assert "because it was not measured: no meter is here" in reason(verdict, "The nearest")


def test_a_limit_on_energy_is_held_against_its_interval(make: SimpleNamespace) -> None:
    energy = Energy(mj=9.0, low=8.0, high=11.0)
    row = make.row("combined", "fp32", 0.95, 4.0, 5).model_copy(update={"energy": energy, "energy_mj": 9.0})
    verdict = decide([row], [], BudgetSettings(max_energy_mj=10.0))
    assert verdict.budget_met
    assert "energy 9.00 of at most 10.0 mJ, perhaps 11.0" in reason(verdict, "keeps to")


def test_where_nothing_meets_the_budget_the_nearest_says_by_how_much(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "fp32", 0.95, 4.0, 5),
        make.row("specialised", "fp32", 0.95, 9.0, 9, engines=2),
    ]
    verdict = decide(rows, make.compare(rows), BudgetSettings(max_latency_ms=3.0, min_accuracy=0.9))
    assert (verdict.deployment, verdict.budget_met) == (None, False)
    nearest = reason(verdict, "The nearest is combined fp32")
    assert "misses latency 4.00 of at most 3.00 ms (by 1.00)" in nearest
    assert "None of them meets the budget" in reason(verdict, "One combined model or several")


def test_shared_is_compared_with_combined_and_specialised(rows: list[DeploymentResult], make: SimpleNamespace) -> None:
    rows[5] = make.row("shared", "int8", 0.95, 1.0, 1)
    answer = reason(
        decide(rows, make.compare(rows), BudgetSettings()), "One combined model or several specialised ones?"
    )
    assert "Neither, but one shared trunk" in answer
    assert "combined int8" in answer
    assert "specialised int8" in answer


def test_the_central_question_stays_open_where_one_side_was_not_measured(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "fp32", 0.95, 4.0, 5)]
    answer = reason(decide(rows, [], BudgetSettings()), "One combined model or several")
    assert "This study cannot say: it has no measurement of specialised." in answer


def test_a_rival_that_misses_the_budget_is_said_to(make: SimpleNamespace) -> None:
    rows = [make.row("combined", "int8", 0.90, 2.0, 1), make.row("specialised", "int8", 0.95, 4.0, 2, engines=2)]
    verdict = decide(rows, make.compare(rows), BudgetSettings(max_accuracy_drop=0.01))
    answer = reason(verdict, "One combined model or several")
    assert "combined int8 misses the budget (accuracy drop 5.0 of at most 1.0 points)" in answer


def test_where_nothing_was_run_the_reasons_say_why(rows: list[DeploymentResult]) -> None:
    verdict = decide([row for row in rows if row.unsupported], [], BudgetSettings())
    assert (verdict.deployment, verdict.budget_met, verdict.stable) == (None, False, False)
    assert "casting them to FP32" in reason(verdict, "Not run")


def test_reasons_are_printable_lines_whatever_the_runtime_said(
    rows: list[DeploymentResult], make: SimpleNamespace
) -> None:
    rows[-1] = rows[-1].model_copy(update={"unsupported": "\x1b[31mfailed\n\tat node 7" + " x" * 500})
    verdict = decide(rows, make.compare(rows), BudgetSettings())
    assert all(sentence.isprintable() and len(sentence) < 600 for sentence in verdict.reasons)


def with_cut(row: DeploymentResult, *cuts: str, flops: int = 600_000_000) -> DeploymentResult:
    roles = ("combined",) if row.name.startswith("combined") else ("vehicles", "animals")
    return row.model_copy(update={"cuts": dict(zip(roles, cuts, strict=True)), "flops": flops})


@pytest.mark.parametrize(
    ("simpler", "other"),
    [
        (("branched@top,layer3", ("top", "layer3"), 2), ("branched@layer3", ("layer3", "layer3"), 1)),
        (("combined@truncated-layer3", ("truncated-layer3",), 1), ("combined@layer3", ("layer3",), 1)),
        (("combined@z", ("z",), 1), ("combined@a", ("a",), 2)),
    ],
)
def test_a_full_tie_goes_to_fewer_tuned_heads_and_then_to_fewer_flops(
    make: SimpleNamespace, simpler: tuple[str, tuple[str, ...], int], other: tuple[str, tuple[str, ...], int]
) -> None:
    rows = [
        with_cut(make.row(name, "fp32", 0.93, 2.0, 1), *cuts, flops=flops) for name, cuts, flops in (other, simpler)
    ]
    assert decide(rows, make.compare(rows), BudgetSettings()).deployment == simpler[0]


def test_every_other_deployment_is_represented_by_its_best(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "int8", 0.93, 1.0, 1),
        with_cut(make.row("specialised@layer2", "int8", 0.93, 6.0, 2, engines=2), "layer2", "layer2"),
        with_cut(make.row("specialised@layer3", "int8", 0.93, 4.0, 2, engines=2), "layer3", "layer3"),
        make.row("specialised", "int8", 0.80, 2.0, 2, engines=2),
        make.row("specialised", "fp32", 0.93, 3.0, 8, engines=2),
    ]
    answer = reason(decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF), "One combined model or several")
    assert "specialised@layer3 int8" in answer
    assert answer.count("specialised@") == 1


def test_a_deployment_is_represented_by_the_precision_that_meets_the_budget(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "int8", 0.93, 1.0, 1),
        make.row("specialised", "int8", 0.80, 2.0, 2, engines=2),
        make.row("specialised", "fp32", 0.93, 3.0, 8, engines=2),
    ]
    answer = reason(decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF), "One combined model or several")
    assert "specialised fp32" in answer


def test_a_chosen_branch_is_held_against_all_frozen_with_its_price(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "int8", 0.90, 2.0, 1),
        make.row("shared", "int8", 0.90, 2.0, 1),
        make.row("shared", "fp32", 0.935, 8.0, 4),
        with_cut(make.row("branched@layer3", "int8", 0.94, 3.0, 1), "layer3", "layer3"),
        with_cut(make.row("branched@layer2", "int8", 0.94, 3.5, 1), "layer2", "layer2"),
        make.row("specialised", "int8", 0.90, 4.0, 2, engines=2),
    ]
    verdict = decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF)
    assert chosen(verdict) == "branched@layer3 int8"
    assert "one trunk shared up to layer3, then a branch per group" in reason(verdict, "One combined model or several")
    gain = reason(verdict, "Freeze depth of branched")
    assert "the best of 2 cuts for this budget is layer3" in gain
    assert "4.0 points more accurate (3.4 to 4.5)" in gain
    assert "slower than shared int8 by a factor of 1.50 (1.47 to 1.53), which is what sharing less costs" in gain
    assert not [sentence for sentence in verdict.reasons if sentence.startswith("branched@layer3 int8 is slower")]


def test_a_cut_that_gains_nothing_is_said_to(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "int8", 0.93, 2.0, 1),
        with_cut(make.row("combined@layer3", "int8", 0.931, 2.0, 1), "layer3"),
    ]
    verdict = decide(rows, make.compare(rows), BudgetSettings())
    assert chosen(verdict) == "combined int8"
    gain = reason(verdict, "Freeze depth of combined: the one cut measured is layer3")
    assert "Against all frozen, it is not proven to differ in accuracy" in gain


def test_without_all_frozen_to_compare_with_there_is_no_gain_to_tell(make: SimpleNamespace) -> None:
    rows = [with_cut(make.row("combined@layer3", "int8", 0.93, 2.0, 1), "layer3")]
    assert not [sentence for sentence in decide(rows, [], BudgetSettings()).reasons if "Freeze depth" in sentence]


def test_a_cascade_answers_as_one(make: SimpleNamespace) -> None:
    rows = [
        make.row("combined", "int8", 0.90, 2.0, 1),
        make.row("cascade", "int8", 0.94, 2.5, 3, engines=3),
        make.row("specialised", "int8", 0.90, 4.0, 2, engines=2),
    ]
    answer = reason(decide(rows, make.compare(rows), WITHIN_A_POINT_AND_A_HALF), "One combined model or several")
    assert "combined first, a group's specialist only where it fired" in answer


def test_many_trees_leave_the_reasons_few_and_short(make: SimpleNamespace) -> None:
    names = [f"combined@features.{number}" for number in range(20)]
    rows = [with_cut(make.row(name, "int8", 0.93, 2.0, 1), name.partition("@")[2]) for name in names]
    unable = [
        DeploymentResult(name=name, precision="fp16", runtime="onnxruntime", unsupported="no kernel") for name in names
    ]
    verdict = decide([*rows, *unable], make.compare(rows), BudgetSettings())
    assert "and 15 others are not proven" in verdict.reasons[0]
    assert reason(verdict, "Not run") == "Not run: 20 deployments in fp16 (no kernel)."
    assert all(len(sentence) < 400 for sentence in verdict.reasons)
