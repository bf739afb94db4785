"""Where two graphs that begin alike part, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.arrays import AnyArray
from edgetl.artifacts.fusion_report import Divergence
from edgetl.graph.fusion.difference import ComparedNode, difference
from edgetl.graph.fusion.inputs import join_inputs
from edgetl.graph.fusion.numbering import Numbered, number_all
from edgetl.graph.fusion.opsets import aligned
from edgetl.graph.model import attribute, needed, opset, tensors_read, varying_tensors

# What frameworks call a layer's tensors; exporters and quantisers add to it.
_PARAMETER = re.compile(r"(.+)\.(weight|bias|running_mean|running_var)(_\w+)?")


def divergences(models: Mapping[str, onnx.ModelProto]) -> tuple[Divergence, ...]:
    """Where each graph but the first parts from those before it.

    Raises:
        EdgetlError: as for `fuse`.
    """
    models = aligned(models)
    numbered = number_all(models, join_inputs(models).names)
    graphs = [_PrunedGraph(name, model, numbered[name]) for name, model in models.items()]
    return tuple(_against_the_closest(graph, graphs[:place]) for place, graph in enumerate(graphs) if place)


def _against_the_closest(graph: _PrunedGraph, others: Sequence[_PrunedGraph]) -> Divergence:
    def shared(other: _PrunedGraph) -> int:
        return sum(graph.nodes[place] in other.numbers for place in graph.varying_nodes)

    closest = max(others, key=shared)  # the first of equals
    layer, reason = _first_difference(closest, graph)
    return Divergence(graph.name, closest.name, shared(closest), len(graph.varying_nodes), layer, reason)


def _first_difference(a: _PrunedGraph, b: _PrunedGraph) -> tuple[str | None, str]:
    """The first layer of ``b`` that ``a`` does not have although it has all that the layer reads of the images.

    Where there are several, a layer with something in its place in ``a`` tells more than the one that comes first:
    some exporters compute shapes beside the layers, others do not.
    """
    position = min(_parting(a, b), key=lambda place: _likeness(a, b, place), default=None)
    if position is None:
        return None, f"all of {b.name} is in {a.name}"
    layer = b.layer_name(position)
    if position in b.unique:
        return layer, f"{b.node(position).op_type} is never merged: it is random, control flow, or of an unknown domain"
    counterpart = _counterpart(a, b, position)
    if counterpart is None:
        return layer, f"{a.name} has no layer here"
    return layer, difference(a.layer(counterpart), b.layer(position))


def _parting(a: _PrunedGraph, b: _PrunedGraph) -> list[int]:
    places = [place for place in b.varying_nodes if b.nodes[place] not in a.numbers]
    missing = {name for place in places for name in b.node(place).output}
    return [place for place in places if missing.isdisjoint(tensors_read(b.node(place)))]


def _likeness(a: _PrunedGraph, b: _PrunedGraph, position: int) -> int:
    counterpart = _counterpart(a, b, position)
    if counterpart is None:
        return 2
    return int(a.node(counterpart).op_type != b.node(position).op_type)


def _counterpart(a: _PrunedGraph, b: _PrunedGraph, position: int) -> int | None:
    """The node of ``a`` in the same place: it reads the same data; better of the same kind; best of the same name."""
    node, name, data = b.node(position), b.layer_name(position), b.data(position)
    places = [place for place in a.varying_nodes if a.nodes[place] not in b.numbers and a.data(place) == data]
    alike = [place for place in places if a.node(place).op_type == node.op_type]
    named = [place for place in alike if a.layer_name(place) == name]
    return next(iter((*named, *alike, *places)), None)


class _PrunedGraph:
    """A numbered graph, without the nodes that need not run.

    ``nodes``: the numbers of the others by position.
    """

    def __init__(self, name: str, model: onnx.ModelProto, numbered: Numbered) -> None:
        self.name = name
        self.unique = numbered.unique
        self._model = model
        self._numbered = numbered
        wanted = needed(model.graph.node, [value.name for value in model.graph.output])
        self.nodes = {place: number for place in wanted if (number := numbered.nodes[place]) is not None}
        self.numbers = frozenset(self.nodes.values())

    def node(self, position: int) -> onnx.NodeProto:
        found: onnx.NodeProto = self._model.graph.node[position]
        return found

    @cached_property
    def varying_nodes(self) -> tuple[int, ...]:
        """Positions of the nodes that depend on an input, or on chance."""
        return tuple(place for place in self.nodes if self._varying.intersection(self.node(place).output))

    @cached_property
    def _varying(self) -> set[str]:
        return varying_tensors(self._model.graph, self.unique)

    def data(self, position: int) -> tuple[int, ...]:
        """The numbers of what a node reads that depends on an input."""
        return tuple(self._numbered.tensors[name] for name in self.node(position).input if name in self._varying)

    def layer(self, position: int) -> ComparedNode:
        node, numbers = self.node(position), self._numbered.tensors
        inputs = tuple(numbers[name] if name else None for name in node.input)
        return ComparedNode(
            owner=self.name,
            node=node,
            version=opset(self._model),
            inputs=inputs,
            values=tuple(self._value(name) for name in node.input),
            quantised=any(self._dequantised(name) is not None for name in node.input),
            first=any(value.name in node.input for value in self._model.graph.input),
        )

    def layer_name(self, position: int) -> str:
        """What its framework called the layer, as told by its weights or its node; else the node's or output's name."""
        node = self.node(position)
        weights = (self._dequantised(name) or name for name in node.input)
        found = Counter(match[1] for name in weights if (match := _PARAMETER.fullmatch(name)))
        return found.most_common(1)[0][0] if found else _module(node.name) or node.name or node.output[0]

    def _value(self, name: str) -> AnyArray | None:
        """A constant, or what DequantizeLinear makes of one."""
        if self._dequantised(name) is not None:
            node = self._model.graph.node[self._makers[name]]
            return _dequantise(node, *(self._value(item) for item in node.input))
        tensor = self._numbered.constants.get(self._numbered.tensors.get(name, -1))
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _dequantised(self, name: str) -> str | None:
        """The integers behind a constant that DequantizeLinear makes; None for other tensors."""
        place = self._makers.get(name)
        if place is None or name in self._varying or self.node(place).op_type != "DequantizeLinear":
            return None
        return str(self.node(place).input[0])

    @cached_property
    def _makers(self) -> dict[str, int]:
        return {name: place for place, node in enumerate(self._model.graph.node) for name in node.output if name}


def _dequantise(
    node: onnx.NodeProto, steps: AnyArray | None, scale: AnyArray | None, zero: AnyArray | None = None
) -> AnyArray | None:
    """In float64; None where the scale is per block."""
    if steps is None or scale is None or scale.ndim > 1:
        return None
    axis = attribute(node, "axis", 1) % max(steps.ndim, 1)
    along = [-1 if scale.ndim and dim == axis else 1 for dim in range(steps.ndim)]
    offset = 0.0 if zero is None else zero.astype(np.float64).reshape(along)
    return (steps.astype(np.float64) - offset) * scale.astype(np.float64).reshape(along)


def _module(name: str) -> str:
    """The module of a node that torch named by its scopes: ``/features/features.4/conv/Conv`` is features.4.conv."""
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)
