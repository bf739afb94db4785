"""The gate of a cascade: how sure its first level must be of a group before the group's specialist runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.bundle import Head
from edgetl.artifacts.deployment import Firing, Gate, fires, refine

Array = npt.NDArray[np.float32]

_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


def choose_gate(
    combined: Array,
    second: Mapping[str, tuple[Head, Array]],
    groups: Mapping[str, Sequence[str]],
    truth: Sequence[str],
) -> Gate:
    """The threshold with the highest top-1 accuracy on validation; of equals the highest, where the least runs.

    Args:
        combined: the first level's probabilities, N x labels in the order of ``groups``.
        second: for each group its head and what that says of all N images.
        truth: the N true labels.
    """
    labels = tuple(label for members in groups.values() for label in members)
    right = np.array([labels.index(label) for label in truth])

    def accuracy(threshold: float) -> float:
        rows = {group: fires(combined, labels, groups[group], threshold) for group in second}
        taken = [(head, rows[group], said[rows[group]]) for group, (head, said) in second.items()]
        return float((refine(combined, labels, taken).argmax(axis=1) == right).mean())

    threshold = max(_THRESHOLDS, key=lambda candidate: (accuracy(candidate), candidate))
    fired = [fires(combined, labels, groups[group], threshold) for group in second]
    return Gate(threshold=threshold, firings=firings(tuple(second), np.stack(fired, axis=1)))


def firings(groups: tuple[str, ...], fired: npt.NDArray[np.bool_]) -> tuple[Firing, ...]:
    """The share of images for every set of groups that fire together, the most frequent first."""
    sets = Counter(tuple(group for group, on in zip(groups, row, strict=True) if on) for row in fired.tolist())
    return tuple(Firing(groups=names, share=count / len(fired)) for names, count in sets.most_common())
