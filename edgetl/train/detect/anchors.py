"""Anchors fitted to the boxes of a data set: k-means with one minus IoU as the distance (Redmon & Farhadi 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.errors import EdgetlError

Anchors = tuple[tuple[float, float], ...]

_ROUNDS = 300
_STARTS = 10  # k-means ends in a local optimum: the best of ten is taken


def fit_anchors(sides: Float64Array, counts: Sequence[int], seed: int) -> tuple[Anchors, ...]:
    """Fit ``counts`` anchors for each scale, the finest first, to the sides of boxes (M x 2, in pixels of the input).

    Raises:
        EdgetlError: there are fewer boxes of different sides than anchors.
    """
    number = sum(counts)
    different = len(np.unique(sides.round(2), axis=0))
    if different < number:
        raise EdgetlError(
            f"{number} anchors are to be fitted, and the training images have {different} boxes of different sides; "
            "add images, or take a network with anchors of its own and keep them (detection.anchors: keep)"
        )
    sides = sides[np.lexsort(sides.T)]  # so that the order in which boxes are listed does not matter
    rng = np.random.default_rng(seed)
    tries = [_kmeans(sides, number, rng) for _ in range(_STARTS)]
    best = max(tries, key=lambda centres: mean_iou(sides, centres))
    ordered = sorted(((float(w), float(h)) for w, h in best), key=lambda side: (side[0] * side[1], side))
    ends = np.cumsum(counts).tolist()
    return tuple(tuple(ordered[end - count : end]) for end, count in zip(ends, counts, strict=True))


def mean_iou(sides: Float64Array, anchors: Float64Array | Sequence[tuple[float, float]]) -> float:
    """The mean over boxes of the IoU with the anchor that fits best, both at one place."""
    return float(_iou(sides, np.asarray(anchors, np.float64)).max(axis=1).mean())


def _kmeans(sides: Float64Array, number: int, rng: np.random.Generator) -> Float64Array:
    # Starts far from each other (Arthur & Vassilvitskii 2007, k-means++).
    chosen = [sides[rng.integers(len(sides))]]
    while len(chosen) < number:
        distance = (1.0 - _iou(sides, np.stack(chosen)).max(axis=1)) ** 2
        total = distance.sum()
        row = rng.choice(len(sides), p=distance / total) if total > 0 else rng.integers(len(sides))
        chosen.append(sides[row])
    centres = np.stack(chosen).astype(np.float64)
    before = None
    for _ in range(_ROUNDS):
        nearest = _iou(sides, centres).argmax(axis=1)
        if before is not None and np.array_equal(nearest, before):
            break
        before = nearest
        for row in range(number):
            members = sides[nearest == row]
            if len(members):  # the median: a few huge boxes do not pull the centre away
                centres[row] = np.median(members, axis=0)
    return centres


def _iou(sides: Float64Array, anchors: Float64Array) -> Float64Array:
    """The IoU of boxes (M x 2) and anchors (K x 2) with a corner in common: M x K."""
    both = np.minimum(sides[:, None], anchors[None]).prod(axis=2)
    result: Float64Array = both / (sides.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - both)
    return result
