"""The first layer at which graphs that begin alike differ, and the reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
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

# Names that frameworks give a layer's tensors; exporters and quantisers append to them.
_PARAMETER = re.compile(r"(.+)\.(weight|bias|running_mean|running_var)(_\w+)?")


def divergences(models: Mapping[str, onnx.ModelProto]) -> tuple[Divergence, ...]:
    """Where each graph but the first leaves the most similar one of those before it, and why.

    Raises:
        EdgetlError: as for `fuse`.
    """
    models = aligned(models)
    numbered = number_all(models, join_inputs(models).names)
    graphs = [_PrunedGraph(name, model, numbered[name]) for name, model in models.items()]
    found = []
    for place, graph in enumerate(graphs[1:], start=1):
        numbers = [graph.nodes[position] for position in graph.varying_nodes]
        shared = [sum(number in other.numbers for number in numbers) for other in graphs[:place]]
        closest = graphs[shared.index(max(shared))]  # the first of equals
        layer, reason = _first_difference(closest, graph)
        found.append(Divergence(graph.name, closest.name, max(shared), len(numbers), layer, reason))
    return tuple(found)


def _first_difference(a: _PrunedGraph, b: _PrunedGraph) -> tuple[str | None, str]:
    """The first layer of ``b`` that is not in ``a`` although its varying inputs are, and the reason.

    Of several, one with a counterpart in ``a`` tells more than the one that comes first, because some exporters compute
    shapes beside the layers and others do not.
    """
    missing = [place for place in b.varying_nodes if b.nodes[place] not in a.numbers]
    made = {name for place in missing for name in b.node(place).output}
    places = [place for place in missing if made.isdisjoint(tensors_read(b.node(place)))]
    if not places:
        return None, f"all of {b.name} is in {a.name}"
    rank = {}
    for place in places:
        other = _counterpart(a, b, place)
        rank[place] = 2 if other is None else int(a.node(other).op_type != b.node(place).op_type)
    position = min(places, key=rank.__getitem__)
    layer = b.layer_name(position)
    if position in b.unique:
        return layer, f"{b.node(position).op_type} is never merged: it is random, control flow, or of an unknown domain"
    counterpart = _counterpart(a, b, position)
    if counterpart is None:
        return layer, f"{a.name} has no layer here"
    return layer, difference(a.layer(counterpart), b.layer(position))


def _counterpart(a: _PrunedGraph, b: _PrunedGraph, position: int) -> int | None:
    """The node of ``a`` that reads the same data, if it can be of the same operator, and best of the same name."""
    node, name, data = b.node(position), b.layer_name(position), b.data(position)
    places = [place for place in a.varying_nodes if a.nodes[place] not in b.numbers and a.data(place) == data]
    alike = [place for place in places if a.node(place).op_type == node.op_type]
    named = [place for place in alike if a.layer_name(place) == name]
    return next(iter((*named, *alike, *places)), None)


class _PrunedGraph:
    """A numbered graph without the nodes that no output needs. ``nodes``: the numbers of its nodes by position."""

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
        """The numbers of a node's inputs that depend on an input of the graph."""
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
        """The name that its framework gave the layer, from its weights or node; else the node's or output's name."""
        node = self.node(position)
        weights = (self._dequantised(name) or name for name in node.input)
        found = Counter(match[1] for name in weights if (match := _PARAMETER.fullmatch(name)))
        if found:
            return found.most_common(1)[0][0]
        # Torch names nodes by their scopes: /features/features.4/conv/Conv is in the module features.4.conv.
        scopes: list[str] = []
        for scope in node.name.split("/")[1:-1]:
            if scopes and scope.startswith(f"{scopes[-1]}."):
                scopes.pop()
            scopes.append(scope)
        return ".".join(scopes) or node.name or str(node.output[0])

    def _value(self, name: str) -> AnyArray | None:
        """The value of a constant, or of a DequantizeLinear of constants in float64; None for other tensors."""
        if self._dequantised(name) is None:
            tensor = self._numbered.constants.get(self._numbered.tensors.get(name, -1))
            return None if tensor is None else numpy_helper.to_array(tensor)
        node = self._model.graph.node[self._makers[name]]
        steps, scale, *zero_points = (self._value(item) for item in node.input)
        if steps is None or scale is None or scale.ndim > 1:  # a scale per block is left alone
            return None
        axis = attribute(node, "axis", 1) % max(steps.ndim, 1)
        along = [-1 if scale.ndim and dim == axis else 1 for dim in range(steps.ndim)]
        zero_point = next((value.astype(np.float64).reshape(along) for value in zero_points if value is not None), 0.0)
        return (steps.astype(np.float64) - zero_point) * scale.astype(np.float64).reshape(along)

    def _dequantised(self, name: str) -> str | None:
        """The name of the integers from which DequantizeLinear makes a constant; None for other tensors."""
        place = self._makers.get(name)
        if place is None or name in self._varying or self.node(place).op_type != "DequantizeLinear":
            return None
        return str(self.node(place).input[0])

    @cached_property
    def _makers(self) -> dict[str, int]:
        return {name: place for place, node in enumerate(self._model.graph.node) for name in node.output if name}
