"""The trees that a study's cuts make possible: their accuracy on validation, their cost, and which are built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.artifacts.deployment import Deployment, layout, tree_name
from edgetl.artifacts.results import Tree
from edgetl.config import OTHER
from edgetl.errors import EdgetlError
from edgetl.graph.cost import CostModel

MOST_TREES = 100_000
"""As many take seconds to compare. Who asks for more should name fewer cuts."""

MAX_ACCURACY_LOSS = 0.05
"""How far a tree may be behind the best of its deployment on validation to be built, however cheap it is."""


@dataclass(frozen=True)
class ValidationOutputs:
    """Every head's probabilities of the validation images, N x (number of its classes), and the N true labels."""

    probabilities: Mapping[str, Float32Array]
    truth: tuple[str, ...]


def grow(roles: Sequence[str], heads: Sequence[ClassificationHead]) -> Iterator[tuple[ClassificationHead, ...]]:
    """Every choice of one head for each role, in the order of roles and heads.

    Raises:
        EdgetlError: there are more than `MOST_TREES`.
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
    """Top-1 accuracy of every tree on validation: each image goes to the head that is surest of one of its labels."""
    # That head has the largest of the probabilities that `merge_probabilities` makes. Without making them, 100,000
    # trees cost no more than one argmax each: confidence and correctness are computed once for each head.
    truth = np.array(validation.truth)
    votes: dict[str, tuple[Float32Array, BoolArray]] = {}
    for head in {head.name: head for tree in trees for head in tree}.values():
        labels = [label for label in head.classes if label != OTHER]
        own = validation.probabilities[head.name][:, [head.classes.index(label) for label in labels]]
        votes[head.name] = own.max(axis=1), np.array(labels)[own.argmax(axis=1)] == truth
    result = []
    for tree in trees:
        surest = np.stack([votes[head.name][0] for head in tree]).argmax(axis=0)
        right = np.stack([votes[head.name][1] for head in tree])
        result.append(float(right[surest, np.arange(len(surest))].mean()))
    return result


def costed(
    kind: str, heads: tuple[ClassificationHead, ...], accuracy: float, costs: CostModel
) -> tuple[Tree, Deployment]:
    """A tree with its cost, by FLOPs and bytes of all its graphs, and the deployment that would be built of it."""
    graphs = layout(kind, heads)
    features = {head.name: head.features for head in heads}
    each = [costs.cost([features[name] for name in spec.heads]) for spec in graphs]
    name, cuts = tree_name(kind, heads), {head.role: head.place for head in heads}
    flops = sum(cost.flops for cost in each)
    tree = Tree(
        name=name,
        deployment=kind,
        cuts=cuts,
        val_accuracy=accuracy,
        flops=flops,
        parameters=sum(cost.parameters for cost in each),
        relative_latency=sum(cost.relative_latency for cost in each),
        measured=False,
    )
    return tree, Deployment(name=name, kind=kind, graphs=graphs, cuts=cuts, flops=flops)


def front(trees: Sequence[Tree]) -> tuple[Tree, ...]:
    """The trees that no other equals or beats in both cost and accuracy, the cheapest first."""
    kept: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: (tree.relative_latency, -tree.val_accuracy, tree.name)):
        if not kept or tree.val_accuracy > kept[-1].val_accuracy:
            kept.append(tree)
    return tuple(kept)


def thin(front: Sequence[Tree], most: int) -> tuple[Tree, ...]:
    """At most so many trees of a front: the most accurate, the cheapest near it, and others evenly spread between."""
    best = max(tree.val_accuracy for tree in front)
    near = [tree for tree in front if tree.val_accuracy >= best - MAX_ACCURACY_LOSS]
    if len(near) <= most:
        return tuple(near)
    # From the most accurate down, so that it is the one that stays where ``most`` is 1.
    positions = np.linspace(len(near) - 1, 0, most).round().astype(int)
    return tuple(near[position] for position in sorted(set(positions)))
