"""Greedy non-maximum suppression, label by label, written as ONNX: the operator, or a loop in its place.

Both get the same candidates: the best pairs of box and label, best first, and those of equal score in the order of
labels and then of boxes. So both keep the same ones. A candidate can only be suppressed by a better one: so of the best
`CANDIDATES` exactly those are kept that would be kept of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgetl.arrays import Float32Array
from edgetl.config import NmsSettings
from edgetl.graph.decoding import Decoded
from edgetl.graph.node_builder import NodeBuilder, integers, real

_FLOAT = TensorProto.FLOAT

CANDIDATES = 1000
"""Pairs of box and label that are suppressed among each other. Where more reach the score threshold and most of the
best ones overlap, fewer than ``max_detections`` boxes may come out; those that do are right."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of box and label, best first: ``boxes`` N x K x 4, ``scores`` and ``labels`` (integers) N x K.

    Those below the score threshold stay, with a score of zero, because shapes may not depend on data.
    """

    boxes: str
    scores: str
    labels: str
    count: int
    classes: int


SuppressFunction = Callable[[NodeBuilder, Candidates, NmsSettings], str]
"""Appends a form of suppression and returns the scores, with zeros where a candidate is not kept."""


def detections(
    build: NodeBuilder, decoded: Decoded, classes: int, suppression: NmsSettings, suppress: SuppressFunction
) -> str:
    """Append the detections of decoded boxes: N x M x 6 (see `VALUES`), best first, filled up with zero scores."""
    found = _candidates(build, decoded, classes, suppression)
    kept = suppress(build, found, suppression)
    columns = [build("Unsqueeze", part, integers(2)) for part in (kept, build("Cast", found.labels, to=_FLOAT))]
    rows = build("Concat", found.boxes, *columns, axis=2)
    # Not by score: which of two equal values comes first is left open by runtimes, ranks are never equal.
    ranks = np.arange(found.count, 0, -1, dtype=np.float32)
    ranked = build("Where", build("Greater", kept, real(0)), ranks, real(0))
    rows = _rows(build, rows, _best(build, ranked, min(suppression.max_detections, found.count))[1])
    if suppression.max_detections > found.count:
        rows = build("Pad", rows, integers(0, 0, 0, 0, suppression.max_detections - found.count, 0))
    score = build("Slice", rows, integers(4), integers(5), integers(2))
    nothing = np.array([0, 0, 0, 0, 0, -1], np.float32)
    return build("Where", build("Greater", score, real(0)), rows, nothing)


def by_operator(build: NodeBuilder, found: Candidates, suppression: NmsSettings) -> str:
    """Append ONNX's NonMaxSuppression, which takes scores for every label: a candidate has its own one and zeros."""
    each = np.arange(found.classes).reshape(1, -1, 1)
    own = build("Equal", build("Unsqueeze", found.labels, integers(1)), each)
    scores = build("Where", own, build("Unsqueeze", found.scores, integers(1)), real(0))
    bounds = (np.array([value], np.float32) for value in (suppression.iou_threshold, 0.0))
    selected = build("NonMaxSuppression", found.boxes, scores, integers(suppression.max_detections), *bounds)
    places = build("Gather", selected, integers(0, 2), axis=1)  # image and candidate; its label is known
    zeros = build("ConstantOfShape", build("Shape", found.scores))
    return build("ScatterND", zeros, places, build("GatherND", found.scores, places))


def by_loop(build: NodeBuilder, found: Candidates, suppression: NmsSettings) -> str:
    """Append a loop to the fixed point of "kept if no better kept one overlaps it": greedy suppression.

    All start as kept, and the first K are right after K rounds; it mostly ends after a few (Cluster-NMS, Zheng et al.
    2020, arXiv 2005.03572).
    """
    better = _better_overlapping(build, found, suppression.iou_threshold)
    real_ones = build("Cast", build("Greater", build("Unsqueeze", found.scores, integers(2)), real(0)), to=_FLOAT)
    body = _round(build, better, real_ones, found.count)
    # Never more rounds than candidates; the body ends it as soon as a round changes nothing.
    kept = build("Loop", np.array(found.count), np.array(True), real_ones, body=body)
    return build("Mul", found.scores, build("Squeeze", kept, integers(2)))


def _candidates(build: NodeBuilder, decoded: Decoded, classes: int, suppression: NmsSettings) -> Candidates:
    """Append the choice of the best pairs, in two steps: all lie in the boxes whose best labels are the best ones."""
    # Above zero, because zero marks what is not kept.
    least = np.array(max(np.float32(suppression.score_threshold), np.finfo(np.float32).tiny))
    boxes, pairs = min(CANDIDATES, decoded.count), min(CANDIDATES, decoded.count * classes)
    best = decoded.scores(build, build("ReduceMax", decoded.classes, axes=[1], keepdims=1), decoded.objectness)
    _, places = _best(build, _reaching(build, best, least), boxes)  # N x 1 x boxes
    places, _ = build.several("TopK", 2, places, integers(boxes), largest=0)  # so that equal scores keep their order
    labels = build("GatherElements", decoded.classes, build("Expand", places, integers(1, classes, 1)), axis=2)
    objectness = build("GatherElements", decoded.objectness, places, axis=2)
    every = build("Reshape", decoded.scores(build, labels, objectness), integers(0, boxes * classes))
    scores, pair = _best(build, _reaching(build, every, least), pairs)
    label = build("Div", pair, np.array(boxes))
    place = build("Sub", pair, build("Mul", label, np.array(boxes)))
    box = build("GatherElements", build("Squeeze", places, integers(1)), place, axis=1)
    corners = build("Transpose", decoded.boxes, perm=[0, 2, 1])
    return Candidates(_rows(build, corners, box), scores, label, pairs, classes)


def _reaching(build: NodeBuilder, scores: str, least: Float32Array) -> str:
    """Append zeros in place of scores below the least one, and in place of NaN, which no comparison holds for."""
    return build("Where", build("GreaterOrEqual", scores, least), scores, real(0))


def _best(build: NodeBuilder, values: str, count: int) -> tuple[str, str]:
    """Append a choice of the largest values along the last axis: the values and their places."""
    best, places = build.several("TopK", 2, values, integers(count))
    return best, places


def _rows(build: NodeBuilder, rows: str, places: str) -> str:
    """Append a choice of rows: of N x K x V those at N x M places."""
    return build("GatherND", rows, build("Unsqueeze", places, integers(2)), batch_dims=1)


def _better_overlapping(build: NodeBuilder, found: Candidates, iou_threshold: float) -> str:
    """N x K x K: 1 where the second candidate is better than the first, of its label, and overlaps it too much."""
    left, top, right, bottom = sides = build.several("Split", 4, found.boxes, axis=2)
    others = [build("Transpose", side, perm=[0, 2, 1]) for side in sides]
    width = build("Sub", build("Min", right, others[2]), build("Max", left, others[0]))
    height = build("Sub", build("Min", bottom, others[3]), build("Max", top, others[1]))
    common = build("Mul", build("Relu", width), build("Relu", height))
    area = build("Mul", build("Sub", right, left), build("Sub", bottom, top))
    both = build("Add", area, build("Transpose", area, perm=[0, 2, 1]))
    overlaps = build("Greater", build("Div", common, build("Sub", both, common)), real(iou_threshold))
    labels = [build("Unsqueeze", found.labels, integers(axis)) for axis in (2, 1)]
    order = np.arange(found.count, dtype=np.float32)
    better = build("Less", order.reshape(1, 1, -1), order.reshape(1, -1, 1))
    return build("Cast", build("And", build("And", overlaps, build("Equal", *labels)), better), to=_FLOAT)


def _round(build: NodeBuilder, better: str, real_ones: str, count: int) -> onnx.GraphProto:
    """The body of the loop: whether the round changed anything, and what is kept now (N x K x 1, as 0 and 1)."""
    inner = build.inner("round")
    turn, again, before = (inner.name(part) for part in ("turn", "again", "before"))
    # Counts of better kept ones: whole numbers, so half a one tells none from some in any precision.
    overlapping = inner("MatMul", better, before)
    now = inner("Mul", real_ones, inner("Cast", inner("Less", overlapping, real(0.5)), to=_FLOAT))
    change = inner("ReduceMax", inner("Abs", inner("Sub", now, before)), keepdims=0)
    changed = inner("Greater", change, real(0))
    kept = helper.make_tensor_value_info(before, _FLOAT, [None, count, 1])
    return helper.make_graph(
        inner.nodes,
        "round",
        [
            helper.make_tensor_value_info(turn, TensorProto.INT64, []),
            helper.make_tensor_value_info(again, TensorProto.BOOL, []),
            kept,
        ],
        [
            helper.make_tensor_value_info(changed, TensorProto.BOOL, []),
            helper.make_tensor_value_info(now, _FLOAT, [None, count, 1]),
        ],
        inner.initializers,
    )
