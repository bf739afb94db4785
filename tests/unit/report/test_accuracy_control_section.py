"""What the report says of the guard: the mix that was taken, each layer's loss and its cost."""

from __future__ import annotations

import pytest

from edgetl.artifacts.accuracy_control_record import (
    AccuracyControlAttempt,
    AccuracyControlResult,
    LayerSensitivityRecord,
)
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import Results
from edgetl.config import BudgetSettings
from edgetl.report.accuracy_control_section import accuracy_control_section, accuracy_control_sentence
from edgetl.report.html import render_html
from edgetl.report.verdict import decide

MISSED = "INT8 loses more than 0.50% of accuracy on 400 images: the nearest of 3 attempts loses 2.00%"


def attempt(what: str, returned: int, drop: float) -> AccuracyControlAttempt:
    accuracy = AccuracyEstimate(value=0.9 - drop, low=0.88 - drop, high=0.92 - drop, n=400)
    return AccuracyControlAttempt(
        variant=what,
        excluded=returned,
        accuracy=accuracy,
        drop=drop,
        standard_error=0.002,
        drop_low=drop - 0.004,
        drop_high=drop + 0.004,
    )


@pytest.fixture
def guard() -> AccuracyControlResult:
    return AccuracyControlResult(
        max_accuracy_drop=0.005,
        images=400,
        fp32={"combined": AccuracyEstimate(value=0.9, low=0.88, high=0.92, n=400)},
        attempts=(attempt("mse", 0, 0.04), attempt("mse, weights fitted", 2, 0.003)),
        chosen=1,
        layers=(
            LayerSensitivityRecord(
                layers=("stem/<conv>", "stem/short"), snr_db=7.94, latency_cost=0.0523, excluded=True
            ),
            LayerSensitivityRecord(layers=("body",), snr_db=41.0, latency_cost=None, excluded=False),
        ),
        excluded_precision="fp16",
    )


def test_the_sentence_names_the_layers_their_price_and_what_is_left_of_the_loss(guard: AccuracyControlResult) -> None:
    assert accuracy_control_sentence(guard) == (
        "INT8 by mse, weights fitted keeps its accuracy with 2 of 3 layers in fp16 (stem/<conv> and stem/short), "
        "which costs about 5.2 % of latency by estimate: -0.3 points against FP32, give or take 0.2, on 400 validation "
        "images, where accuracy control allows a drop of 0.5."
    )


def test_int8_that_needs_no_layer_back_says_so_without_an_unknown_price(guard: AccuracyControlResult) -> None:
    whole = guard.model_copy(update={"layers": (), "metric": "mAP@0.5"})
    assert "keeps its mAP@0.5 in all layers: -0.3 points" in accuracy_control_sentence(whole)
    unknown = tuple(note.model_copy(update={"latency_cost": None}) for note in guard.layers)
    assert "latency" not in accuracy_control_sentence(guard.model_copy(update={"layers": unknown}))


def test_the_mix_is_a_reason_of_the_verdict_unless_int8s_row_says_it(
    results: Results, guard: AccuracyControlResult
) -> None:
    def reasons(one: AccuracyControlResult | None) -> tuple[str, ...]:
        return decide(results.deployments, results.comparisons, BudgetSettings(), "top-1", one).reasons

    assert set(reasons(guard)) - set(reasons(None)) == {accuracy_control_sentence(guard)}
    assert reasons(guard.model_copy(update={"why_not_met": MISSED})) == reasons(None)


def test_the_page_shows_attempts_and_layers_with_names_escaped(results: Results, guard: AccuracyControlResult) -> None:
    page = render_html(results.model_copy(update={"accuracy_control": guard}))
    assert "INT8 and its accuracy control" in page
    assert "stem/&lt;conv&gt;, stem/short" in page and "<conv>" not in page
    assert "+5.2 %" in page and "7.9" in page
    assert "INT8 and its accuracy control" not in render_html(results)


def test_a_missed_budget_has_no_attempt_that_was_taken(results: Results, guard: AccuracyControlResult) -> None:
    found = accuracy_control_section(
        results.model_copy(update={"accuracy_control": guard.model_copy(update={"why_not_met": MISSED})})
    )
    assert found is not None
    assert found.lead == f"{MISSED}."
    assert not any(row.chosen for row in found.attempts)
