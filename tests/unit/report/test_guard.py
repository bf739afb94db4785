"""What the report says of the guard: the mix that was taken, each layer's loss and its cost."""

from __future__ import annotations

import pytest

from edgetl.artifacts.estimate import Estimate
from edgetl.artifacts.guard import Attempt, Guard, LayerNote
from edgetl.artifacts.results import Results
from edgetl.config import Budget
from edgetl.report.guard import guard_page, guard_sentence
from edgetl.report.html import render_html
from edgetl.report.metric import terms
from edgetl.report.verdict import decide

MISSED = "INT8 loses more than 0.50% of accuracy on 400 images: the nearest of 3 attempts loses 2.00%"


def attempt(what: str, returned: int, drop: float) -> Attempt:
    accuracy = Estimate(value=0.9 - drop, low=0.88 - drop, high=0.92 - drop, n=400)
    return Attempt(
        what=what,
        returned=returned,
        accuracy=accuracy,
        drop=drop,
        error=0.002,
        drop_low=drop - 0.004,
        drop_high=drop + 0.004,
    )


@pytest.fixture
def guard() -> Guard:
    return Guard(
        max_accuracy_drop=0.005,
        images=400,
        fp32={"combined": Estimate(value=0.9, low=0.88, high=0.92, n=400)},
        attempts=(attempt("mse", 0, 0.04), attempt("mse, weights fitted", 2, 0.003)),
        taken=1,
        layers=(
            LayerNote(layers=("stem/<conv>", "stem/short"), snr_db=7.94, latency_cost=0.0523, returned=True),
            LayerNote(layers=("body",), snr_db=41.0, latency_cost=None, returned=False),
        ),
        returned_to="fp16",
    )


def test_the_sentence_names_the_layers_their_price_and_what_is_left_of_the_loss(guard: Guard) -> None:
    assert guard_sentence(guard, terms("top-1")) == (
        "INT8 by mse, weights fitted keeps its accuracy with 2 of 3 layers in fp16 (stem/<conv> and stem/short), "
        "which costs about 5.2 % of latency by estimate: -0.3 points against FP32, give or take 0.2, on 400 validation "
        "images, where the guard lets it lose 0.5."
    )


def test_int8_that_needs_no_layer_back_says_so_without_an_unknown_price(guard: Guard) -> None:
    whole = guard.model_copy(update={"layers": ()})
    assert "keeps its mAP@0.5 in all layers: -0.3 points" in guard_sentence(whole, terms("mAP@0.5"))
    unknown = tuple(note.model_copy(update={"latency_cost": None}) for note in guard.layers)
    assert "latency" not in guard_sentence(guard.model_copy(update={"layers": unknown}), terms("top-1"))


def test_the_mix_is_a_reason_of_the_verdict_unless_int8s_row_says_it(results: Results, guard: Guard) -> None:
    def reasons(one: Guard | None) -> tuple[str, ...]:
        return decide(results.deployments, results.comparisons, Budget(), "top-1", one).reasons

    assert set(reasons(guard)) - set(reasons(None)) == {guard_sentence(guard, terms("top-1"))}
    assert reasons(guard.model_copy(update={"missed": MISSED})) == reasons(None)


def test_the_page_shows_attempts_and_layers_with_names_escaped(results: Results, guard: Guard) -> None:
    page = render_html(results.model_copy(update={"guard": guard}))
    assert "INT8 and its guard" in page
    assert "stem/&lt;conv&gt;, stem/short" in page and "<conv>" not in page
    assert "+5.2 %" in page and "7.9" in page
    assert "INT8 and its guard" not in render_html(results)


def test_a_missed_budget_has_no_attempt_that_was_taken(results: Results, guard: Guard) -> None:
    found = guard_page(results.model_copy(update={"guard": guard.model_copy(update={"missed": MISSED})}))
    assert found is not None
    assert found.lead == f"{MISSED}."
    assert not any(row.taken for row in found.attempts)
