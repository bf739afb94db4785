from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgetl.artifacts.results import Results
from edgetl.report.cut_sweep import depth_order, has_cuts, ranking, shared_flops, spearman

VALUES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20)


def test_cuts_are_ordered_from_the_images_to_the_top_by_what_is_shared(swept: Results) -> None:
    cuts = ["top", "features.14", "images", "features.7", "features.11"]
    assert depth_order(swept, cuts) == ["images", "features.7", "features.11", "features.14", "top"]


def test_flops_order_the_cuts_where_names_would_not(swept: Results) -> None:
    renamed = swept.model_dump_json().replace("features.14", "a.late.layer")
    cuts = ["a.late.layer", "features.7", "top"]
    assert depth_order(Results.model_validate_json(renamed), cuts) == ["features.7", "a.late.layer", "top"]


def test_without_a_branched_tree_names_count_upward(results: Results) -> None:
    cuts = ["top", "features.12", "features.7", "images"]
    assert depth_order(results, cuts) == ["images", "features.7", "features.12", "top"]


def test_the_deeper_the_cut_the_less_is_computed(swept: Results) -> None:
    flops = shared_flops(swept)
    ordered = [flops[cut] for cut in ("images", "features.3", "features.7", "features.11", "features.14", "top")]
    assert ordered == sorted(ordered, reverse=True)


def test_only_a_study_with_a_cut_has_cuts(results: Results, swept: Results) -> None:
    assert (has_cuts(results), has_cuts(swept)) == (False, True)


@given(VALUES)
def test_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = zip(*pairs, strict=True)
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_an_order_of_too_few_or_of_equals_says_nothing(a: list[float], b: list[float]) -> None:
    assert spearman(a, b) is None


def test_the_estimate_is_held_against_the_clock_in_each_precision(swept: Results) -> None:
    sentence = ranking(swept)
    assert sentence is not None
    assert "over 15 trees in fp32" in sentence
    assert "over 15 trees in int8" in sentence


def test_an_estimate_that_orders_backwards_is_shown_to(swept: Results) -> None:
    trees = tuple(tree.model_copy(update={"relative_latency": -tree.flops}) for tree in swept.trees)
    assert "-1.00 over 15 trees in int8" in str(ranking(swept.model_copy(update={"trees": trees})))


def test_without_trees_there_is_no_estimate_to_judge(results: Results) -> None:
    assert ranking(results) is None
