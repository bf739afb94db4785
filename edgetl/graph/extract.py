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

_BATCH = 7919
"""Images of which shapes are inferred: a prime that is no size of a layer, so it shows where it went."""


def extract(model: onnx.ModelProto, outputs: Sequence[str], inputs: Sequence[str] = ()) -> onnx.ModelProto:
    """The part of a graph that some tensors need, under the names it has.

    Args:
        model: the graph.
        outputs: any of its tensors; they become the outputs, in this order.
        inputs: tensors that are given, in this order; left out, the graph's own inputs, as far as they are needed.

    Weights and labels that belong to the rest are left out with it. Types and shapes are inferred where the graph does
    not tell them.

    Raises:
        EdgetlError: no tensor is asked for, one that the graph does not have, or one twice; or a graph input is needed
            that is not given.
    """
    whole = model.graph
    _refuse_unknown(whole, outputs, inputs)
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
    """Their types, with the shape that one image has there: what is measured without images is fed by it."""
    shapes, values = _shapes_for_one_image(model), []
    for value in typed(model, names):
        one = onnx.ValueInfoProto()
        one.CopyFrom(value)
        for dim, size in zip(one.type.tensor_type.shape.dim[1:], shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
        values.append(one)
    return values


def _refuse_unknown(graph: onnx.GraphProto, outputs: Sequence[str], inputs: Sequence[str]) -> None:
    known = {value.name for value in (*graph.input, *graph.initializer)}
    known.update(name for node in graph.node for name in node.output if name)
    unknown = next((name for name in (*outputs, *inputs) if name not in known), None)
    if unknown is not None:
        raise EdgetlError(f"the graph has no tensor {unknown!r}; name tensors of the graph")
    if not outputs or len(set(outputs)) < len(outputs):
        raise EdgetlError("a part of a graph needs outputs, each named once")


def frontier(model: onnx.ModelProto, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The tensors on the way to ``known`` (and inputs) from which the rest of the way to all ``wanted`` starts.

    Each holds a row for every image. A shape, or the tokens of all images in one matrix, is computed once more.
    """
    wiring, handed = Wiring(model.graph), _shapes_for_one_image(model)
    there = frozenset[int]().union(*(_behind(wiring, name) for name in known))
    own = set().union(*(_behind(wiring, name) for name in wanted)) - there
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
    """Of every tensor that holds floats in a row for each image: the shape of a row."""
    light, _ = without_weights(model)
    del light.graph.value_info[:]
    for value in light.graph.input:
        if value.name == IMAGES:
            value.type.tensor_type.shape.dim[0].dim_value = _BATCH
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    shapes = {}
    for value in (*inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        batch, *row = [dim.dim_value for dim in kind.shape.dim] or [0]
        if kind.elem_type == TensorProto.FLOAT and batch == _BATCH and all(row):
            shapes[value.name] = tuple(row)
    return shapes


def _behind(wiring: Wiring, tensor: str) -> frozenset[int]:
    """Positions of the nodes that a tensor depends on."""
    found: set[int] = set()
    waiting = [tensor]
    while waiting:
        position = wiring.producers.get(waiting.pop())
        if position is not None and position not in found:
            found.add(position)
            waiting.extend(tensors_read(wiring.nodes[position]))
    return frozenset(found)
