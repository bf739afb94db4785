"""Detections matched to objects by COCO's rules (cocodataset.org), with hotcoco: which are right, and which wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetl.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.errors import EdgetlError, MissingExtraError

IOU_THRESHOLDS: Float64Array = np.linspace(0.50, 0.95, 10)
# In one image and of one label, those with the highest scores: COCO's own limit.
MAX_DETECTIONS = 100

# The evaluator holds Python objects for every box; an image's matches do not depend on other images.
_IMAGES_AT_ONCE = 250
_ANY_AREA = [0.0, 1e10]


@dataclass(frozen=True, eq=False)
class Matches:
    """D detections in N images, label after label, those of a label by falling score.

    The detections of label ``l`` are ``spans[l]:spans[l + 1]``. A detection is ``right`` (found an object), ``ignored``
    (found one that is ignored) or else wrong, at each of T = 10 `IOU_THRESHOLDS`.

    Attributes:
        labels: L names.
        objects: N x L, how many are to be found.
        spans: L + 1.
        images: D positions.
        scores: D.
        right: T x D.
        ignored: T x D.
    """

    labels: tuple[str, ...]
    objects: Int64Array
    spans: Int64Array
    images: Int64Array
    scores: Float64Array
    right: BoolArray
    ignored: BoolArray


@dataclass(frozen=True, eq=False)
class _Pair:
    """K detections of one label in one image, by falling score."""

    image: int
    label: int
    objects: int
    scores: Float64Array
    right: BoolArray
    ignored: BoolArray


def match(truth: Sequence[BoxedImage], detections: Sequence[Float32Array], labels: Sequence[str]) -> Matches:
    """Return the detections, each matched by falling score to the object of its label that it overlaps most.

    An object is found once; all else on it is wrong. An ignored object may be found any number of times, and overlap
    with it is the fraction of the detection that lies inside. Of equal scores the first comes first, in an image and of
    images: COCO's own figures depend on it.

    Args:
        truth: N images.
        detections: for each image K x 6: left, top, right and bottom in pixels of the upright image, score, and
            position of the label.
        labels: L names, among them those of all objects.

    Raises:
        MissingExtraError: hotcoco is not installed.
        EdgetlError: a detection is not finite, ends before it begins or has no label among ``labels``; or an object.
    """
    _check(truth, detections, labels)
    pairs: list[_Pair] = []
    for first in range(0, len(truth), _IMAGES_AT_ONCE):
        some = slice(first, first + _IMAGES_AT_ONCE)
        pairs += _evaluate(truth[some], detections[some], labels, first)
    return _join(pairs, len(truth), labels)


def _check(truth: Sequence[BoxedImage], detections: Sequence[Float32Array], labels: Sequence[str]) -> None:
    if len(truth) != len(detections):
        raise ValueError(f"{len(truth)} images, and detections in {len(detections)}")
    for image, found in zip(truth, detections, strict=True):
        if found.ndim != 2 or found.shape[1] != 6:
            raise ValueError(f"detections are K x 6, not {' x '.join(map(str, found.shape))}")
        if strange := {box.label for box in image.boxes} - set(labels):
            raise EdgetlError(f"{image.path}: an object is of {min(strange)!r}, which is no label of the study")
        left, top, right, bottom, _, label = found.T
        known = np.isin(label, np.arange(len(labels)))
        if not (np.isfinite(found).all(axis=1) & (left <= right) & (top <= bottom) & known).all():
            raise EdgetlError(
                f"{image.path}: a detection is not finite, ends before it begins, or has a label that is none of the "
                f"{len(labels)}; a model whose numbers overflow does that: try another precision"
            )


def _evaluate(
    truth: Sequence[BoxedImage], detections: Sequence[Float32Array], labels: Sequence[str], first: int
) -> Iterator[_Pair]:
    """Yield a pair for each label and image with an object or a detection; the images begin at position ``first``."""
    try:
        from hotcoco import COCO, COCOeval
    except ImportError as error:
        raise MissingExtraError("measuring a detector", "detect", error) from error
    common: dict[str, Any] = {
        "images": [{"id": n} for n in range(len(truth))],
        "categories": [{"id": n, "name": label} for n, label in enumerate(labels)],
    }
    positions = {label: position for position, label in enumerate(labels)}
    objects = _annotations(
        (n, positions[box.label], (box.x1, box.y1, box.x2, box.y2), {"iscrowd": int(box.ignored)})
        for n, image in enumerate(truth)
        for box in image.boxes
    )
    results = _annotations(
        (n, int(label), corners, {"score": score})
        for n, image in enumerate(detections)
        for *corners, score, label in image.astype(np.float64).tolist()
    )
    evaluator = COCOeval(COCO(common | {"annotations": objects}), COCO(common | {"annotations": results}), "bbox")
    evaluator.params.iou_thrs = IOU_THRESHOLDS.tolist()
    evaluator.params.max_dets = [MAX_DETECTIONS]
    evaluator.params.area_rng, evaluator.params.area_rng_lbl = [_ANY_AREA], ["all"]
    evaluator.evaluate()
    for one in filter(None, evaluator.eval_imgs):
        shape = len(IOU_THRESHOLDS), len(one["dtScores"])
        ignored = np.array(one["dtIgnore"], dtype=np.bool_).reshape(shape)
        yield _Pair(
            image=first + one["image_id"],
            label=one["category_id"],
            objects=one["gtIgnore"].count(False),
            scores=np.array(one["dtScores"], dtype=np.float64),
            right=np.array(one["dtMatches"]).reshape(shape).astype(np.bool_) & ~ignored,
            ignored=ignored,
        )


def _annotations(rows: Iterable[tuple[int, int, Sequence[float], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return COCO's form of boxes, from image, label, corners, and what else an annotation holds."""
    annotations = []
    # Numbered from 1, because the evaluator takes an id of 0 for no match.
    for number, (image, label, (x1, y1, x2, y2), more) in enumerate(rows, start=1):
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
        annotations.append({"id": number, "image_id": image, "category_id": label, **box, **more})
    return annotations


def _join(pairs: Sequence[_Pair], images: int, labels: Sequence[str]) -> Matches:
    objects = np.zeros((images, len(labels)), dtype=np.int64)
    for pair in pairs:
        objects[pair.image, pair.label] = pair.objects
    lengths = [len(pair.scores) for pair in pairs]
    label = np.repeat(np.array([pair.label for pair in pairs], dtype=np.int64), lengths)
    nothing = np.zeros((len(IOU_THRESHOLDS), 0), dtype=np.bool_)
    scores = np.concatenate([np.zeros(0), *(pair.scores for pair in pairs)])
    # Stable: images are in their order, and so are equal scores in an image.
    order = np.lexsort((-scores, label))
    return Matches(
        labels=tuple(labels),
        objects=objects,
        spans=np.searchsorted(label[order], np.arange(len(labels) + 1)),
        images=np.repeat(np.array([pair.image for pair in pairs], dtype=np.int64), lengths)[order],
        scores=scores[order],
        right=np.concatenate([nothing, *(pair.right for pair in pairs)], axis=1)[:, order],
        ignored=np.concatenate([nothing, *(pair.ignored for pair in pairs)], axis=1)[:, order],
    )
