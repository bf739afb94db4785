"""Top-1 accuracy, overall and per group, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from edgetl.arrays import BoolArray, Float32Array, Int64Array
from edgetl.artifacts.results import Accuracy, Comparison
from edgetl.measure import bootstrap


def hits(probabilities: Float32Array, truth: Int64Array) -> BoolArray:
    """Return for each image whether the most probable label is the right one, all labels competing.

    Args:
        probabilities: N x labels.
        truth: N label positions.
    """
    result: BoolArray = probabilities.argmax(axis=1) == truth
    return result


def top1_accuracy(
    probabilities: Float32Array, truth: Int64Array, labels: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> Accuracy:
    """Return accuracy overall, per group with all labels competing, and per group masked to the group's own labels.

    Masked accuracy answers "which of these five?" where it is known that it is one of the five; a specialist
    looks better by it than it will be in the field. A group with no test image is left out.
    """
    right = hits(probabilities, truth)
    unmasked, masked = {}, {}
    for group, members in groups.items():
        columns = np.array([labels.index(label) for label in members])
        inside = np.isin(truth, columns)
        if inside.any():
            unmasked[group] = bootstrap.mean_of_hits(right[inside])
            own = columns[probabilities[inside][:, columns].argmax(axis=1)]
            masked[group] = bootstrap.mean_of_hits(own == truth[inside])
    return Accuracy(overall=bootstrap.mean_of_hits(right), groups=unmasked, masked=masked)


def compare_accuracies(predictions: Mapping[str, Float32Array], truth: Int64Array) -> tuple[Comparison, ...]:
    """Return the difference in accuracy of every pair, with its interval, both on the same images."""
    right = {title: hits(probabilities, truth) for title, probabilities in predictions.items()}
    comparisons = []
    for a, b in combinations(right, 2):
        difference, low, high = bootstrap.paired_difference(right[a], right[b])
        comparisons.append(Comparison(a=a, b=b, metric="accuracy", difference=difference, low=low, high=high))
    return tuple(comparisons)
