"""Raw outputs of YOLO networks as boxes and scores, written as ONNX.

The formulas are those of Darknet's ``yolo`` and ``region`` layers (Redmon & Farhadi 2016 and 2018; Bochkovskiy et al.
2020 for ``scale_xy``; Wang et al. 2020 for ``activated``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.errors import EdgetlError
from edgetl.graph.node_builder import NodeBuilder, integers, real

# A box 22,000 times as large as its anchor is a fault of the weights; infinity would spoil every other box.
_LARGEST_EXPONENT = 10.0


@dataclass(frozen=True)
class RawOutput:
    """A raw output in the graph, N x A * (5 + C) x ``rows`` x ``columns``, and the scale that decodes it."""

    tensor: str
    rows: int
    columns: int
    scale: YoloScale


@dataclass(frozen=True)
class Decoded:
    """The boxes of all raw outputs of a head: scale by scale, anchor by anchor, row by row.

    ``boxes``: N x 4 x B, left, top, right, bottom in pixels of the network's input. ``objectness``: N x 1 x B.
    ``classes``: N x C x B; where ``pending``, before the logistic function. It keeps their order, so it need only be
    computed for the boxes that are kept.
    """

    boxes: str
    objectness: str
    classes: str
    pending: bool
    count: int

    def scores(self, build: NodeBuilder, classes: str, objectness: str) -> str:
        """Append the scores, objectness times class, of all boxes or of some."""
        return build("Mul", build("Sigmoid", classes) if self.pending else classes, objectness)


def decode(build: NodeBuilder, raws: Sequence[RawOutput], classes: int, width: int, height: int) -> Decoded:
    """Append the nodes that decode a head's raw outputs, for an input of ``width`` x ``height`` pixels.

    Raises:
        EdgetlError: some outputs are ``activated`` or have ``softmax`` and others do not.
    """
    kinds = {(raw.scale.activated, raw.scale.softmax) for raw in raws}
    if len(kinds) != 1:
        raise EdgetlError("the outputs of one head are to be read in different ways, expected activations of one kind")
    ((activated, softmax),) = kinds
    boxes, objectness, scores = zip(*(_decode(build, raw, classes, width, height) for raw in raws), strict=True)
    every = _joined(build, scores)
    return Decoded(
        boxes=_joined(build, boxes),
        objectness=_joined(build, objectness),
        classes=build("Softmax", every, axis=1) if softmax and not activated else every,
        pending=not activated and not softmax,
        count=sum(len(raw.scale.anchors) * raw.rows * raw.columns for raw in raws),
    )


def _joined(build: NodeBuilder, parts: Sequence[str]) -> str:
    return build("Concat", *parts, axis=2) if len(parts) > 1 else parts[0]


def _decode(build: NodeBuilder, raw: RawOutput, classes: int, width: int, height: int) -> tuple[str, str, str]:
    """Append the decoding of one raw output: boxes, objectness and classes, N x (4, 1, C) x A * H * W."""
    scale, cells, anchors = raw.scale, raw.rows * raw.columns, len(raw.scale.anchors)
    values = build("Reshape", raw.tensor, integers(0, anchors, 5 + classes, cells))
    values = build("Transpose", values, perm=[0, 2, 1, 3])
    place, sides, objectness, scores = build.several("Split", 4, values, integers(2, 2, 1, classes), axis=1)
    if not scale.activated:
        place, objectness = build("Sigmoid", place), build("Sigmoid", objectness)
    stride = np.array([width / raw.columns, height / raw.rows], np.float32).reshape(1, 2, 1, 1)
    corner = np.stack([np.tile(np.arange(raw.columns), raw.rows), np.repeat(np.arange(raw.rows), raw.columns)])
    # scale_xy stretches the centre's way over its cell about the cell's middle.
    begin = corner.reshape(1, 2, 1, cells) - (scale.scale_xy - 1.0) / 2.0
    centre = build("Mul", place, (stride * scale.scale_xy).astype(np.float32))
    centre = build("Add", centre, (stride * begin).astype(np.float32))
    halves = np.array(scale.anchors, np.float32).T.reshape(1, 2, -1, 1) / 2
    if scale.activated:
        half = build("Mul", build("Mul", sides, sides), 4 * halves)
    else:
        half = build("Mul", build("Exp", build("Min", sides, real(_LARGEST_EXPONENT))), halves)
    corners = build("Concat", build("Sub", centre, half), build("Add", centre, half), axis=1)
    flat = [
        build("Reshape", part, integers(0, size, anchors * cells)) for part, size in ((corners, 4), (objectness, 1))
    ]
    return flat[0], flat[1], build("Reshape", scores, integers(0, classes, anchors * cells))
