"""A first level's outputs on its own training images, as if it had never seen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures
from edgetl.train.solver import HeadProblem, design, fit

_FOLDS = 5


def out_of_fold(head: ClassificationHead, train: LabelledFeatures, seed: int) -> tuple[Float32Array, ...]:
    """The head's probabilities of every training image, N x (number of its classes), for each view.

    Each image is judged by a head of the same l2 and temperature that was fitted without it (and without its other
    views). A second level trained on the head's own outputs would trust what the head merely remembers (Wolpert 1992,
    Stacked generalization).
    """
    fold = _folds(train.labels, seed)
    targets = HeadPlan(head.name, head.classes, head.activation).targets(train.labels)
    result = tuple(np.empty((len(fold), len(head.classes)), np.float32) for _ in train.views)
    for number in range(_FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(inside):
            continue
        shared = design([torch.from_numpy(view[outside]) for view in train.views])
        task = HeadProblem(targets[outside], len(head.classes), head.activation)
        ((weight, bias),) = fit(shared, [(task, head.l2)])
        for view, probabilities in zip(train.views, result, strict=True):
            logits = torch.addmm(bias, torch.from_numpy(view[inside]), weight.T) / head.temperature
            judged = logits.softmax(dim=1) if head.activation == "softmax" else logits.sigmoid()
            probabilities[inside] = judged.numpy()
    return result


def _folds(labels: Sequence[str], seed: int) -> Int64Array:
    """The fold of each image; every label is spread evenly over the folds."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), np.int64)
    names = np.array(labels)
    for label in sorted(set(labels)):
        members = rng.permutation(np.flatnonzero(names == label))
        # A random first fold: rare labels would all fall into the first ones.
        fold[members] = (np.arange(len(members)) + rng.integers(_FOLDS)) % _FOLDS
    return fold
