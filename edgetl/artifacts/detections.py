"""Lists of detections: how a graph gives them, and several lists as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.detector import VALUES
from edgetl.artifacts.files import Artifact
from edgetl.config import Suppression

Array = npt.NDArray[np.float32]

Form = Literal["operator", "loop", "none"]
"""How a graph ends: with ONNX's NonMaxSuppression; with the same as a Loop, for runtimes that lack that operator; or
with every box and its scores, for those who suppress outside."""


class Detecting(Artifact):
    """What a graph's metadata say of an output with detections. Without a suppression (form ``none``) it has all."""

    form: Form
    suppression: Suppression | None = None


def listed_detections(output: Array) -> list[Array]:
    """The detections of every image, K x 6, from N x M x 6 filled up with empty ones."""
    return [image[image[:, 4] > 0.0] for image in output]


def merge(parts: Sequence[Array], overlap: float, most: int) -> Array:
    """One list of detections from the lists of several engines: greedy non-maximum suppression, label by label.

    Where scores are equal, what comes first in ``parts`` is the better one.

    Args:
        parts: K x 6 each (see `VALUES`), with labels in one numbering and boxes in one frame; empty ones may be left.
        overlap: of two boxes of a label whose intersection over union is above this, the one that scores less goes.
        most: how many are kept, the best ones.

    Returns:
        K x 6, best first.
    """
    every = np.concatenate([np.zeros((0, VALUES), np.float32), *parts])
    every = every[np.argsort(-every[:, 4], kind="stable")]
    areas = (every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])
    kept: list[int] = []
    left = np.arange(len(every))
    while left.size and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        same = every[left, 5] == every[best, 5]
        left = left[~(same & (_intersections(every[best], every[left], areas[best], areas[left]) > overlap))]
    return every[kept]


def _intersections(box: Array, boxes: Array, area: np.float32, areas: Array) -> Array:
    """Over unions, of one box with others; none with a box that has no area."""
    sides = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    union = area + areas - common
    over: Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return over
