"""Detections as a graph's outputs: raw outputs of YOLO networks are decoded and suppressed in the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.detector_bundle import VALUES, YoloScale
from edgetl.artifacts.predictions import DetectionOutput, NmsImplementation
from edgetl.config import NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.decoding import RawOutput, decode
from edgetl.graph.external_data import add_initializers
from edgetl.graph.metadata import describe
from edgetl.graph.model import FreshNames, typed
from edgetl.graph.node_builder import NodeBuilder
from edgetl.graph.suppression import SuppressFunction, by_loop, by_operator, detections

_FORMS: Mapping[NmsImplementation, SuppressFunction] = {"operator": by_operator, "loop": by_loop}


@dataclass(frozen=True)
class RawHead:
    """A head, its ``classes`` in order, and the tensors with its raw outputs, one for each of ``scales``."""

    name: str
    classes: tuple[str, ...]
    scales: tuple[YoloScale, ...]
    raws: tuple[str, ...]


def with_detections(
    model: onnx.ModelProto,
    heads: Sequence[RawHead],
    preprocessing: Preprocessing,
    suppression: NmsSettings,
    form: NmsImplementation = "operator",
    keep: Collection[str] = (),
) -> onnx.ModelProto:
    """The graph with detections as outputs in place of raw ones.

    Each head becomes an output of its name, N x M x 6 (see `VALUES`): the ``max_detections`` best boxes, best first,
    filled up with boxes of zeros that score zero and have the label -1. In the form ``none`` each becomes two, with
    every box: ``NAME/boxes``, N x B x 4, and ``NAME/scores``, N x B x C. All is computed in float32, so the graph must
    be in its precision already.

    Args:
        model: a graph of opset 17 with the raw outputs, float32 N x A * (5 + C) x H x W, anywhere in it.
        preprocessing: recorded in the metadata, with labels and suppression; its size is the network's input's.
        suppression: only boxes whose score is at least its threshold, and above 0, are given.
        form: ``operator`` for ONNX Runtime and full TensorRT, ``loop`` for TensorRT-RTX; both give the same.
        keep: raw outputs that stay outputs of the graph.

    Raises:
        EdgetlError: a raw output is missing or not of its scale's size, or scales of a head are of several kinds.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    read = {raw for head in heads for raw in head.raws} - set(keep)
    del graph.output[:]
    graph.output.extend(output for output in model.graph.output if output.name not in read)
    names = FreshNames(graph)
    dim = graph.input[0].type.tensor_type.shape.dim[0]
    batch = str(dim.dim_param) or int(dim.dim_value)
    for head in heads:
        build = NodeBuilder(names, f"detect/{head.name}")
        ends = _append(build, _raws(model, head), head, preprocessing, suppression, form)
        graph.node.extend(build.nodes)
        add_initializers(result, build.initializers)
        for name, shape in ends.items():
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]))
    one = DetectionOutput(implementation=form, nms=None if form == "none" else suppression)
    labels = {_names(head, form)[-1]: head.classes for head in heads}
    describe(result, labels, {name: one for head in heads for name in _names(head, form)}, preprocessing)
    return result


def _append(
    build: NodeBuilder,
    raws: Sequence[RawOutput],
    head: RawHead,
    preprocessing: Preprocessing,
    suppression: NmsSettings,
    form: NmsImplementation,
) -> dict[str, tuple[int, int]]:
    """Append a head's decoding and suppression: the outputs it becomes, with their shape for one image."""
    classes = len(head.classes)
    decoded = decode(build, raws, classes, preprocessing.width, preprocessing.height)
    if form != "none":
        build.named(head.name, "Identity", detections(build, decoded, classes, suppression, _FORMS[form]))
        return {head.name: (suppression.max_detections, VALUES)}
    boxes, scores = _names(head, form)
    build.named(boxes, "Transpose", decoded.boxes, perm=[0, 2, 1])
    every = decoded.scores(build, decoded.classes, decoded.objectness)
    build.named(scores, "Transpose", every, perm=[0, 2, 1])
    return {boxes: (decoded.count, 4), scores: (decoded.count, classes)}


def _names(head: RawHead, form: NmsImplementation) -> tuple[str, ...]:
    """The outputs that a head becomes; the last one has its labels."""
    return (f"{head.name}/boxes", f"{head.name}/scores") if form == "none" else (head.name,)


def _raws(model: onnx.ModelProto, head: RawHead) -> list[RawOutput]:
    made = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    missing = next((name for name in head.raws if name not in made), None)
    if missing is not None or len(head.raws) != len(head.scales):
        found = f"no tensor {missing!r}" if missing else f"{len(head.raws)} raw outputs and {len(head.scales)} scales"
        raise EdgetlError(f"the graph of head {head.name!r} has {found}; export the network again")
    raws = []
    for value, scale in zip(typed(model, head.raws), head.scales, strict=True):
        _, *sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim] or [0]
        channels = len(scale.anchors) * (5 + len(head.classes))
        if len(sizes) != 3 or sizes[0] != channels or not all(sizes):
            found = " x ".join(str(size or "?") for size in ("N", *sizes))
            raise EdgetlError(
                f"raw output {value.name!r} is {found}, expected N x {channels} x H x W with fixed H and W for "
                f"{len(scale.anchors)} anchors and {len(head.classes)} labels"
            )
        raws.append(RawOutput(value.name, sizes[1], sizes[2], scale))
    return raws
