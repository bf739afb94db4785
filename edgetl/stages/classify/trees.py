"""All trees that a study's cuts make possible: what each is worth on validation, and which deserve to be built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.artifacts.results import Tree
from edgetl.config import OTHER
from edgetl.errors import EdgetlError

MOST_TREES = 100_000
"""Seconds of work. Beyond it, fewer cuts are the better question."""

MAX_ACCURACY_LOSS = 0.05
"""How far behind the best of its deployment a tree may be on validation to be worth building, however cheap it is."""


@dataclass(frozen=True)
class ValidationOutputs:
    """What the heads say of the validation images, N x (number of the head's classes) each, and the N true labels."""

    probabilities: Mapping[str, Float32Array]
    truth: tuple[str, ...]


@dataclass(frozen=True)
class _Vote:
    """A head's best label for each image: how sure it is of it, and whether it is right."""

    confidence: Float32Array
    right: BoolArray


def grow(roles: Sequence[str], heads: Sequence[ClassificationHead]) -> Iterator[tuple[ClassificationHead, ...]]:
    """Every choice of one head for each role, in the order of roles and heads.

    Raises:
        EdgetlError: there are more than can be looked at.
    """
    choices = [[head for head in heads if head.role == role and head.first_level is None] for role in roles]
    count = prod(len(heads) for heads in choices)
    if count > MOST_TREES:
        raise EdgetlError(
            f"{len(choices[0])} cuts for each of {len(roles)} groups make {count} trees, at most {MOST_TREES} can be "
            "compared; name fewer cuts in backbone.cut"
        )
    yield from product(*choices)


def accuracies(trees: Sequence[tuple[ClassificationHead, ...]], validation: ValidationOutputs) -> list[float]:
    """Top-1 accuracy of every tree on validation: each image goes to the head that is surest of one of its labels.

    That is the largest of the probabilities that `edgetl.artifacts.deployment.merge_probabilities` makes, without
    making them.
    """
    votes = {head.name: _vote(head, validation) for tree in trees for head in tree}
    return [_accuracy([votes[head.name] for head in tree]) for tree in trees]


def _vote(head: ClassificationHead, validation: ValidationOutputs) -> _Vote:
    labels = [label for label in head.classes if label != OTHER]
    own = validation.probabilities[head.name][:, [head.classes.index(label) for label in labels]]
    best = own.argmax(axis=1)
    right = np.array([labels[position] for position in best]) == np.array(validation.truth)
    return _Vote(own.max(axis=1), right)


def _accuracy(votes: Sequence[_Vote]) -> float:
    surest = np.stack([vote.confidence for vote in votes]).argmax(axis=0)
    right = np.stack([vote.right for vote in votes])
    return float(right[surest, np.arange(len(surest))].mean())


def front(trees: Sequence[Tree]) -> tuple[Tree, ...]:
    """The trees that no other beats: cheaper ones are less accurate. The cheapest first."""
    kept: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: (tree.relative_latency, -tree.val_accuracy, tree.name)):
        if not kept or tree.val_accuracy > kept[-1].val_accuracy:
            kept.append(tree)
    return tuple(kept)


def thin(front: Sequence[Tree], most: int) -> tuple[Tree, ...]:
    """At most so many of a front: the most accurate, the cheapest near it, and others evenly spread between them."""
    best = max(tree.val_accuracy for tree in front)
    near = [tree for tree in front if tree.val_accuracy >= best - MAX_ACCURACY_LOSS]
    if len(near) <= most:
        return tuple(near)
    positions = np.linspace(len(near) - 1, 0, most).round().astype(int)
    return tuple(near[position] for position in sorted(set(positions)))
