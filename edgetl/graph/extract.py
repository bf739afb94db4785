"""A part of a graph as a graph of its own, and where a part may begin."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from edgetl.artifacts.bundle import IMAGES
from edgetl.errors import EdgetlError
from edgetl.graph.external_data import add_initializers, envelope, without_weights
from edgetl.graph.metadata import metadata_for
from edgetl.graph.model import Wiring, needed, tensors_read, typed

# The batch size with which shapes are inferred: a prime that is no layer's size, so it shows which axis is the batch.
_BATCH = 7919


def extract(model: onnx.ModelProto, outputs: Sequence[str], inputs: Sequence[str] = ()) -> onnx.ModelProto:
    """The part of a graph that some tensors need, with the same names, and with the weights and labels that it needs.

    Args:
        outputs: any of its tensors; they become the outputs, in this order.
        inputs: tensors that are given, in this order; by default the graph's own inputs that are needed.

    Raises:
        EdgetlError: no output is named, one twice, or a tensor that the graph does not have.
    """
    whole = model.graph
    known = {value.name for value in (*whole.input, *whole.initializer)}
    known.update(name for node in whole.node for name in node.output if name)
    unknown = next((name for name in (*outputs, *inputs) if name not in known), None)
    if unknown is not None:
        raise EdgetlError(f"the graph has no tensor {unknown!r}; name tensors of the graph")
    if not outputs or len(set(outputs)) < len(outputs):
        raise EdgetlError("a part of a graph needs outputs, each named once")
    nodes = [whole.node[position] for position in needed(whole.node, outputs, given=inputs)]
    read = {name for node in nodes for name in tensors_read(node)} | set(outputs)
    inner = {name for node in nodes for name in node.output} - set(outputs)
    part = envelope(model)
    part.graph.name = "part"
    part.graph.node.extend(nodes)
    part.graph.input.extend(_inputs(model, inputs) if inputs else (v for v in whole.input if v.name in read))
    part.graph.output.extend(typed(model, outputs))
    add_initializers(part, (tensor for tensor in whole.initializer if tensor.name in read))
    part.graph.value_info.extend(value for value in whole.value_info if value.name in inner)
    helper.set_model_props(part, metadata_for(model, outputs))
    return part


def _inputs(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """Types of tensors, with fixed sizes for one image: an engine that is timed without images needs them."""
    shapes, values = _shapes_for_one_image(model), []
    for value in typed(model, names):
        one = onnx.ValueInfoProto()
        one.CopyFrom(value)
        for dim, size in zip(one.type.tensor_type.shape.dim[1:], shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
        values.append(one)
    return values


def frontier(model: onnx.ModelProto, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The tensors that are made on the way to ``known`` (or are inputs) and from which all ``wanted`` can be computed.

    Each has one row per image. Others (a shape, or the tokens of all images in one matrix) are computed once more.
    """
    wiring, handed = Wiring(model.graph), _shapes_for_one_image(model)
    own = set(needed(wiring.nodes, wanted)).difference(needed(wiring.nodes, known))
    if not own:
        return tuple(wanted)
    waiting = sorted(own, reverse=True)
    starts: dict[str, None] = {}
    while waiting:
        for name in tensors_read(wiring.nodes[waiting.pop()]):
            position = wiring.producers.get(name)
            if name in wiring.constants or position in own:
                continue
            if position is None or name in handed:
                starts[name] = None
            else:
                own.add(position)
                waiting.append(position)
    return tuple(starts)


def _shapes_for_one_image(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of a row, for every float tensor that has one row per image."""
    light, _ = without_weights(model)
    del light.graph.value_info[:]
    for value in light.graph.input:
        if value.name == IMAGES:
            value.type.tensor_type.shape.dim[0].dim_value = _BATCH
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    shapes = {}
    for value in (*inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        # An open size is 0 here, so it is taken for no row.
        batch, *row = [dim.dim_value for dim in kind.shape.dim] or [0]
        if kind.elem_type == TensorProto.FLOAT and batch == _BATCH and all(row):
            shapes[value.name] = tuple(row)
    return shapes
