"""Trees: every choice of cuts, scored without building any, and the few that are worth building."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.bundle import TOP, ClassificationHead
from edgetl.artifacts.deployment import merge_probabilities
from edgetl.artifacts.results import Tree
from edgetl.errors import EdgetlError
from edgetl.stages.classify.trees import MAX_ACCURACY_LOSS, ValidationOutputs, accuracies, front, grow, thin

GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")


def head(role: str, cut: str = TOP, truncated: bool = False, beside: str | None = None) -> ClassificationHead:
    place = f"truncated-{cut}" if truncated else cut
    return ClassificationHead(
        name=role if place == TOP else f"{role}@{place}",
        classes=(*GROUPS[role], "other"),
        activation="softmax",
        cut=cut,
        truncated=truncated,
        first_level=beside,
        l2=1e-3,
        temperature=1.0,
        val_loss=0.5,
        val_accuracy=0.8,
    )


HEADS = [head(role, cut) for role in GROUPS for cut in ("layer1", "layer2", TOP)]


def said(seed: int, count: int) -> ValidationOutputs:
    rng = np.random.default_rng(seed)
    probabilities = {one.name: rng.dirichlet(np.ones(len(one.classes)), count).astype(np.float32) for one in HEADS}
    return ValidationOutputs(probabilities, tuple(rng.choice(LABELS, count)))


def test_a_tree_has_one_head_for_each_group_and_every_mix_of_cuts_is_grown_once() -> None:
    trees = list(grow(tuple(GROUPS), HEADS))
    assert len({tuple(one.name for one in tree) for tree in trees}) == len(trees) == 9
    assert all([one.role for one in tree] == list(GROUPS) for tree in trees)


def test_the_second_level_of_a_cascade_is_no_choice_for_a_tree() -> None:
    second = head("signs").model_copy(update={"name": "signs@cascade", "first_level": "combined"})
    assert all(second not in tree for tree in grow(tuple(GROUPS), [*HEADS, second]))


def test_more_trees_than_can_be_compared_are_refused_before_they_are_grown() -> None:
    heads = [head("signs", f"layer{number}") for number in range(1000)]
    with pytest.raises(EdgetlError, match=r"1000 cuts for each of 2 groups make 1000000 trees.*name fewer cuts"):
        list(grow(("signs", "signs"), heads))


@given(seed=st.integers(0, 10_000), count=st.integers(1, 20))
def test_accuracy_on_validation_is_that_of_the_merged_prediction(seed: int, count: int) -> None:
    validation = said(seed, count)
    trees = list(grow(tuple(GROUPS), HEADS))
    truth = np.array([LABELS.index(label) for label in validation.truth])
    for tree, value in zip(trees, accuracies(trees, validation), strict=True):
        outputs = {one.name: validation.probabilities[one.name] for one in tree}
        merged = merge_probabilities(outputs, {one.name: one for one in tree}, LABELS)
        assert value == pytest.approx((merged.argmax(axis=1) == truth).mean())


def tree(number: int, accuracy: float, estimate: float) -> Tree:
    return Tree(
        name=f"branched@{number}",
        deployment="branched",
        cuts={},
        val_accuracy=accuracy,
        flops=1,
        parameters=1,
        relative_latency=estimate,
        measured=False,
    )


SOME_TREES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=40).map(
    lambda pairs: [tree(number, accuracy / 100, cost) for number, (accuracy, cost) in enumerate(pairs)]
)


@given(trees=SOME_TREES)
def test_nothing_beats_a_tree_of_the_front_and_something_beats_every_other(trees: list[Tree]) -> None:
    kept = front(trees)
    assert all(a.relative_latency < b.relative_latency and a.val_accuracy < b.val_accuracy for a, b in pairwise(kept))
    for one in trees:
        assert any(
            best.relative_latency <= one.relative_latency and best.val_accuracy >= one.val_accuracy for best in kept
        )


@given(trees=SOME_TREES, most=st.integers(1, 8))
def test_a_thinned_front_keeps_the_most_accurate_and_then_the_cheapest_near_it(trees: list[Tree], most: int) -> None:
    whole = [
        tree
        for tree in front(trees)
        if tree.val_accuracy >= max(tree.val_accuracy for tree in trees) - MAX_ACCURACY_LOSS
    ]
    kept = thin(front(trees), most)
    assert len(kept) == min(most, len(whole))
    assert whole[-1] in kept
    assert most == 1 or whole[0] in kept
    assert [one for one in whole if one in kept] == list(kept)
