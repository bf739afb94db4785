"""The gate of a cascade: how sure its first level must be of a group before the group's specialist runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.artifacts.deployment import Gate, GateFiring, apply_second_level, fired_rows

_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


def choose_gate(
    combined: Float32Array,
    second: Mapping[str, tuple[ClassificationHead, Float32Array]],
    groups: Mapping[str, Sequence[str]],
    truth: Sequence[str],
) -> Gate:
    """The gate with the highest top-1 accuracy on validation; of equals the highest threshold, where the least runs.

    Args:
        combined: the first level's probabilities, N x labels in the order of ``groups``.
        second: for each group its head and the head's probabilities for all N images.
        truth: the N true labels.
    """
    labels = tuple(label for members in groups.values() for label in members)
    right = np.array([labels.index(label) for label in truth])

    def accuracy(threshold: float) -> float:
        rows = {group: fired_rows(combined, labels, groups[group], threshold) for group in second}
        taken = [(head, rows[group], own[rows[group]]) for group, (head, own) in second.items()]
        return float((apply_second_level(combined, labels, taken).argmax(axis=1) == right).mean())

    threshold = max(_THRESHOLDS, key=lambda candidate: (accuracy(candidate), candidate))
    fired = [fired_rows(combined, labels, groups[group], threshold) for group in second]
    return Gate(threshold=threshold, firings=firings(tuple(second), np.stack(fired, axis=1)))


def firings(groups: tuple[str, ...], fired: BoolArray) -> tuple[GateFiring, ...]:
    """The share of images for every set of groups that fire together, the most frequent first."""
    sets = Counter(tuple(group for group, on in zip(groups, row, strict=True) if on) for row in fired.tolist())
    return tuple(GateFiring(groups=names, fraction=count / len(fired)) for names, count in sets.most_common())
