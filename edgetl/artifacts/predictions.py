"""Detections as graphs give them, and what `edgetl predict` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgetl.arrays import Float32Array
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.detector_bundle import VALUES
from edgetl.artifacts.files import Artifact
from edgetl.config import NmsSettings


class Detection(Artifact):
    """An object that was found: left, top, right and bottom in pixels of the upright image."""

    label: str
    score: float
    xyxy: tuple[float, float, float, float]


class Classification(Artifact):
    """A label that a head gives to an image."""

    head: str
    label: str
    probability: float


class Prediction(Artifact):
    """What is said of one upright image, or of one frame of a video; the first frame is 0.

    ``detections``, best first, where the model detects, and ``labels``, head by head, where it classifies.
    """

    path: str
    frame: int | None = None
    seconds: float | None = None
    width: int
    height: int
    detections: tuple[Detection, ...] | None = None
    labels: tuple[Classification, ...] | None = None


class Predictions(Artifact):
    """What is said of some images, and which could not be read."""

    schema_version: Literal[1] = 1
    model: str
    images: tuple[Prediction, ...]
    broken: tuple[BrokenFile, ...] = ()


NmsImplementation = Literal["operator", "loop", "none"]
"""How a graph ends: with ONNX's NonMaxSuppression; with the same as a Loop, for runtimes that lack that operator; or
with every box and its scores, for those who suppress outside."""


class DetectionOutput(Artifact):
    """What a graph's metadata say of an output with detections. Without a suppression (form ``none``) it has all."""

    implementation: NmsImplementation
    nms: NmsSettings | None = None


def listed_detections(output: Float32Array) -> list[Float32Array]:
    """The detections of every image, K x 6, from N x M x 6 filled up with empty ones."""
    return [image[image[:, 4] > 0.0] for image in output]


def merge_detections(parts: Sequence[Float32Array], iou_threshold: float, max_detections: int) -> Float32Array:
    """One list of detections from the lists of several engines: greedy non-maximum suppression, label by label.

    Where scores are equal, what comes first in ``parts`` is the better one.

    Args:
        parts: K x 6 each (see `VALUES`), with labels in one numbering and boxes in one frame; empty ones may be left.
        iou_threshold: of two boxes of a label whose intersection over union is above this, the one that scores less
            goes.
        max_detections: how many are kept, the best ones.

    Returns:
        K x 6, best first.
    """
    every = np.concatenate([np.zeros((0, VALUES), np.float32), *parts])
    every = every[np.argsort(-every[:, 4], kind="stable")]
    areas = (every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])
    kept: list[int] = []
    left = np.arange(len(every))
    while left.size and len(kept) < max_detections:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        same = every[left, 5] == every[best, 5]
        left = left[~(same & (_intersections(every[best], every[left], areas[best], areas[left]) > iou_threshold))]
    return every[kept]


def _intersections(box: Float32Array, boxes: Float32Array, area: np.float32, areas: Float32Array) -> Float32Array:
    """Over unions, of one box with others; none with a box that has no area."""
    sides = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    union = area + areas - common
    over: Float32Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return over
