from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from edgetl.measure.accuracy import compare_accuracies, hits, top1_accuracy

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
    accuracy = top1_accuracy(probabilities, truth, LABELS, GROUPS)
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
    assert hits(probabilities, truth).tolist() == [True, False, False, True]
    accuracy = top1_accuracy(probabilities, truth, LABELS, GROUPS)
    assert accuracy.overall.value == 0.5
    assert accuracy.groups["animals"].value == pytest.approx(1 / 3)
    assert accuracy.masked["animals"].value == pytest.approx(2 / 3)
    assert accuracy.groups["vehicles"].value == accuracy.masked["vehicles"].value == 1.0


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_masked_accuracy_is_never_below_unmasked(seed: int, images: int) -> None:
    probabilities, truth = random_case(seed, images)
    accuracy = top1_accuracy(probabilities, truth, LABELS, GROUPS)
    assert accuracy.groups.keys() == accuracy.masked.keys()
    for group in accuracy.groups:
        assert accuracy.masked[group].value >= accuracy.groups[group].value


def test_a_group_with_no_test_image_is_left_out() -> None:
    probabilities, _ = random_case(0, 10)
    accuracy = top1_accuracy(probabilities, np.ones(10, dtype=np.int64), LABELS, GROUPS)
    assert set(accuracy.groups) == set(accuracy.masked) == {"vehicles"}


def test_every_pair_is_compared_once_image_by_image() -> None:
    _, truth = random_case(0)
    predictions = {
        title: random_case(seed)[0] for seed, title in enumerate(("combined fp32", "shared fp32", "shared int8"))
    }
    comparisons = compare_accuracies(predictions, truth)
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
