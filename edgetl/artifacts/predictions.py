"""The predictions that `edgetl predict` prints, and detections as graphs return them."""

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
    """A detected object: left, top, right and bottom in pixels of the upright image."""

    label: str
    score: float
    xyxy: tuple[float, float, float, float]


class Classification(Artifact):
    """A label that a head gives to an image."""

    head: str
    label: str
    probability: float


class Prediction(Artifact):
    """The prediction for one upright image, or one frame of a video, counted from 0.

    A detector gives ``detections``, best first; a classifier gives ``labels``, head by head.
    """

    path: str
    frame: int | None = None
    seconds: float | None = None
    width: int
    height: int
    detections: tuple[Detection, ...] | None = None
    labels: tuple[Classification, ...] | None = None


class Predictions(Artifact):
    """The predictions for some images, and the files that could not be read."""

    schema_version: Literal[1] = 1
    model: str
    images: tuple[Prediction, ...]
    broken: tuple[BrokenFile, ...] = ()


# A graph ends with ONNX's NonMaxSuppression; with the same as a Loop, for runtimes that lack the operator; or with all
# boxes and scores, for suppression outside the graph.
NmsImplementation = Literal["operator", "loop", "none"]


class DetectionOutput(Artifact):
    """The metadata of a graph's output with detections; ``nms`` is None where it has all boxes."""

    implementation: NmsImplementation
    nms: NmsSettings | None = None


def listed_detections(output: Float32Array) -> list[Float32Array]:
    """The detections of each image, K x 6, without the empty ones that fill up ``output``, N x M x 6."""
    return [image[image[:, 4] > 0.0] for image in output]


def merge_detections(parts: Sequence[Float32Array], iou_threshold: float, max_detections: int) -> Float32Array:
    """Merge the detections of several engines by greedy non-maximum suppression, label by label.

    Args:
        parts: K x 6 each (see `VALUES`), with labels in one numbering and boxes in one frame; empty ones may be left.
        iou_threshold: of two boxes of a label with a higher intersection over union, the one that scores less is
            dropped.
        max_detections: how many of the best are kept.

    Returns:
        K x 6, best first.
    """
    every = np.concatenate([np.zeros((0, VALUES), np.float32), *parts])
    # Stable: of equal scores, the one that comes first in ``parts`` is the better one.
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
    """Intersection over union of one box with others; 0 where both have no area."""
    sides = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(sides, 0).prod(axis=1)
    union = area + areas - common
    over: Float32Array = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return over
