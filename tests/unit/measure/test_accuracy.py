from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from edgetl.measure.accuracy import Answers, Hits, balanced_accuracy, balanced_difference, hits, top1_accuracy
from edgetl.measure.metrics import COMPUTATIONS

Array = NDArray[np.float32]
Truth = NDArray[np.int64]

LABELS = ("cat", "car", "dog", "bus", "cow")
GROUPS = {"animals": ("cat", "dog", "cow"), "vehicles": ("car", "bus")}


def random_case(seed: int, images: int = 200) -> tuple[Array, Truth]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(LABELS), images)
    probabilities = rng.dirichlet(np.ones(len(LABELS)), images).astype(np.float32)
    probabilities[np.arange(images), truth] += rng.random(images, dtype=np.float32)
    return probabilities, truth


def test_accuracy_is_scikit_learns() -> None:
    probabilities, truth = random_case(0)
    accuracy = top1_accuracy(Answers(probabilities, truth, LABELS), GROUPS)
    predicted = probabilities.argmax(axis=1)
    assert accuracy.overall.value == pytest.approx(accuracy_score(truth, predicted))
    for group, members in GROUPS.items():
        inside = np.isin(truth, [LABELS.index(label) for label in members])
        assert accuracy.groups[group].value == pytest.approx(accuracy_score(truth[inside], predicted[inside]))
        others = [n for n, label in enumerate(LABELS) if label not in members]
        own = probabilities[inside].copy()
        own[:, others] = -1.0
        assert accuracy.masked[group].value == pytest.approx(accuracy_score(truth[inside], own.argmax(axis=1)))
        assert accuracy.groups[group].n == accuracy.masked[group].n == inside.sum()


def test_accuracy_by_hand() -> None:
    probabilities = np.array(
        [
            [0.7, 0.1, 0.1, 0.05, 0.05],  # cat, said cat
            [0.2, 0.5, 0.1, 0.1, 0.1],  # cat, said car: wrong, but cat among the animals
            [0.3, 0.4, 0.1, 0.1, 0.1],  # dog, said car: wrong, and cat among the animals
            [0.1, 0.2, 0.1, 0.5, 0.1],  # bus, said bus
        ],
        dtype=np.float32,
    )
    truth = np.array([0, 0, 2, 3])
    assert hits(Answers(probabilities, truth, LABELS)).right.tolist() == [True, False, False, True]
    accuracy = top1_accuracy(Answers(probabilities, truth, LABELS), GROUPS)
    assert accuracy.overall.value == 0.5
    assert accuracy.groups["animals"].value == pytest.approx(1 / 3)
    assert accuracy.masked["animals"].value == pytest.approx(2 / 3)
    assert accuracy.groups["vehicles"].value == accuracy.masked["vehicles"].value == 1.0


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_masked_accuracy_is_never_below_unmasked(seed: int, images: int) -> None:
    probabilities, truth = random_case(seed, images)
    accuracy = top1_accuracy(Answers(probabilities, truth, LABELS), GROUPS)
    assert accuracy.groups.keys() == accuracy.masked.keys()
    for group in accuracy.groups:
        assert accuracy.masked[group].value >= accuracy.groups[group].value


def test_a_group_with_no_test_image_is_left_out() -> None:
    probabilities, _ = random_case(0, 10)
    accuracy = top1_accuracy(Answers(probabilities, np.ones(10, dtype=np.int64), LABELS), GROUPS)
    assert set(accuracy.groups) == set(accuracy.masked) == {"vehicles"}


def test_every_pair_is_compared_once_image_by_image() -> None:
    _, truth = random_case(0)
    predictions = {
        title: random_case(seed)[0] for seed, title in enumerate(("combined fp32", "shared fp32", "shared int8"))
    }
    comparisons = COMPUTATIONS["top-1"].compare(
        {title: Answers(one, truth, LABELS) for title, one in predictions.items()}
    )
    assert [(one.a, one.b) for one in comparisons] == [
        ("combined fp32", "shared fp32"),
        ("combined fp32", "shared int8"),
        ("shared fp32", "shared int8"),
    ]
    for one in comparisons:
        a, b = (accuracy_score(truth, predictions[title].argmax(axis=1)) for title in (one.a, one.b))
        assert one.metric == "accuracy"
        assert one.difference == pytest.approx(a - b)
        assert all(left <= right for left, right in pairwise((one.low, one.difference, one.high)))


def rare(seed: int, images: int = 200) -> tuple[Array, Truth]:
    """Answers to images of which a tenth has another label than the first."""
    probabilities, _ = random_case(seed, images)
    truth = np.where(np.arange(images) % 10, 0, np.arange(images) // 10 % len(LABELS))
    return probabilities, truth


def test_balanced_accuracy_is_scikit_learns() -> None:
    probabilities, truth = rare(0)
    accuracy = balanced_accuracy(Answers(probabilities, truth, LABELS), GROUPS)
    predicted = probabilities.argmax(axis=1)
    assert accuracy.overall.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert accuracy.overall.low < accuracy.overall.value < accuracy.overall.high
    recalls = [(predicted[truth == label] == label).mean() for label in (1, 3)]
    assert accuracy.groups["vehicles"].value == pytest.approx(np.mean(recalls))
    assert accuracy.groups["vehicles"].n == np.isin(truth, [1, 3]).sum()


def test_the_paired_interval_of_balanced_accuracy_is_that_of_drawn_images() -> None:
    (first, truth), (second, _) = rare(1, 400), rare(2, 400)
    a, b = hits(Answers(first, truth, LABELS)), hits(Answers(second, truth, LABELS))
    value, low, high = balanced_difference(a, b)
    rng, drawn = np.random.default_rng(5), []
    for _ in range(4000):
        some = rng.integers(0, len(truth), len(truth))
        labels = np.unique(truth[some])
        recalls = [[one.right[some][truth[some] == n].mean() for n in labels] for one in (a, b)]
        drawn.append(np.mean(recalls[0]) - np.mean(recalls[1]))
    scores = [balanced_accuracy_score(truth, one.argmax(axis=1)) for one in (first, second)]
    assert value == pytest.approx(scores[0] - scores[1])
    assert (low, high) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.02)


def test_where_all_images_are_right_the_rarest_label_says_how_sure_balanced_accuracy_is() -> None:
    truth = np.repeat(np.arange(2), (95, 5))
    same = Hits(np.ones(100, np.bool_), truth)
    value, low, high = balanced_difference(same, same)
    assert (value, low) == (0.0, -high)
    assert high == pytest.approx(1 - 0.025 ** (1 / 10)), "as of two labels with five images each"
