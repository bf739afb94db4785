"""One scale for each tensor that graphs share but that was quantised apart in each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgetl.arrays import AnyArray, Float64Array
from edgetl.artifacts.fusion_report import ScaleConflict
from edgetl.errors import EdgetlError
from edgetl.graph.fusion.inputs import join_inputs
from edgetl.graph.fusion.numbering import SCALED, Numbered, number_all, scaled_activation
from edgetl.graph.fusion.opsets import aligned
from edgetl.graph.model import FreshNames, attribute

_LIMITS: dict[int, tuple[int, int]] = {
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}

_Place = tuple[str, int]


def scale_conflicts(models: Mapping[str, onnx.ModelProto]) -> tuple[ScaleConflict, ...]:
    """The tensors that several graphs would share if the scales of these and of earlier tensors were equal.

    Raises:
        EdgetlError: as for `fuse`.
    """
    graphs = _graphs(aligned(models))
    found = []
    for group in _conflicts(graphs):
        prefix, position = group[0]
        node = graphs[prefix].node(position)
        if node.op_type == "QuantizeLinear":
            scales = {owner: graphs[owner].steps(place) for owner, place in group}
            found.append(ScaleConflict(node.input[0], {owner: float(own.scale.max()) for owner, own in scales.items()}))
    return tuple(found)


def recalibrate(models: Mapping[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    """Copies of the graphs with one scale for each tensor of `scale_conflicts`: its range is the union of its ranges.

    Raises:
        EdgetlError: a layer behind such a tensor has an INT32 bias, whose steps depend on the scale; or as for `fuse`.
    """
    copies = {prefix: onnx.ModelProto() for prefix in models}
    for prefix, model in aligned(models).items():
        copies[prefix].CopyFrom(model)
    graphs = _graphs(copies)
    for group in _conflicts(graphs):
        for prefix, position in group:
            _refuse_integer_biases(graphs[prefix], position)
        united = _union([graphs[prefix].steps(position) for prefix, position in group])
        for prefix, position in group:
            graphs[prefix].set_steps(position, united)
    return copies


@dataclass(frozen=True)
class _Steps:
    """The quantisation of a tensor: value = (integer - zero_point) * scale."""

    scale: AnyArray
    zero_point: AnyArray
    kind: int

    def values(self, integer: int) -> Float64Array:
        """The values that an integer stands for, of one scale or one per channel."""
        zero_point: Float64Array = self.zero_point.astype(np.float64)
        return (integer - zero_point) * self.scale.astype(np.float64)


def _union(all_steps: Sequence[_Steps]) -> _Steps:
    first = all_steps[0]
    # Equal zero points stay as they are, so that symmetric scales stay symmetric.
    if all(np.array_equal(steps.zero_point, first.zero_point) for steps in all_steps):
        widest = np.max([steps.scale for steps in all_steps], axis=0)
        return _Steps(np.asarray(widest, first.scale.dtype), first.zero_point, first.kind)
    lowest, highest = _LIMITS[first.kind]
    low = np.min([steps.values(lowest) for steps in all_steps], axis=0)
    high = np.max([steps.values(highest) for steps in all_steps], axis=0)
    scale = np.asarray((high - low) / (highest - lowest), first.scale.dtype)
    zero_point = np.clip(np.rint(lowest - low / scale), lowest, highest)
    return _Steps(scale, zero_point.astype(first.zero_point.dtype), first.kind)


class _ScaledGraph:
    """A graph with two numberings: ``exact`` regards scales, ``alike`` ignores them."""

    def __init__(self, prefix: str, model: onnx.ModelProto, exact: Numbered, alike: Numbered) -> None:
        self.prefix = prefix
        self.model = model
        self.exact = exact
        self.alike = alike
        self._fresh = FreshNames(model.graph)

    def node(self, position: int) -> onnx.NodeProto:
        found: onnx.NodeProto = self.model.graph.node[position]
        return found

    def scaled(self) -> Iterator[tuple[int, int]]:
        """Number (without scales) and position of each node that quantises or dequantises activations."""
        for position, node in enumerate(self.model.graph.node):
            number = self.alike.nodes[position]
            if number is not None and scaled_activation(node, self.alike):
                yield number, position

    def settings(self, position: int) -> tuple[int, ...]:
        """The numbers of a node's scale and zero point."""
        return tuple(self.exact.tensors[name] for name in self.node(position).input[1:] if name)

    def steps(self, position: int) -> _Steps:
        scale, *zero_point = (self.exact.constants[number] for number in self.settings(position))
        values = numpy_helper.to_array(scale)
        if zero_point:
            return _Steps(values, numpy_helper.to_array(zero_point[0]), zero_point[0].data_type)
        kind = attribute(self.node(position), "output_dtype", 0) or TensorProto.UINT8
        return _Steps(values, np.zeros(values.shape, onnx.helper.tensor_dtype_to_np_dtype(kind)), kind)

    def set_steps(self, position: int, steps: _Steps) -> None:
        node = self.node(position)
        for slot, value in ((1, steps.scale), (2, steps.zero_point)):
            if slot < len(node.input) and node.input[slot]:
                name = self._fresh.fresh(node.input[slot])
                node.input[slot] = name
                self.model.graph.initializer.append(numpy_helper.from_array(value, name))


def _graphs(models: Mapping[str, onnx.ModelProto]) -> dict[str, _ScaledGraph]:
    if not any(node.op_type in SCALED for model in models.values() for node in model.graph.node):
        return {}  # numbering reads every weight, which is slow
    names = join_inputs(models).names
    exact, alike = number_all(models, names), number_all(models, names, scales=False)
    return {prefix: _ScaledGraph(prefix, model, exact[prefix], alike[prefix]) for prefix, model in models.items()}


def _conflicts(graphs: Mapping[str, _ScaledGraph]) -> list[list[_Place]]:
    """Groups of nodes that would be the same in several graphs if their scales were."""
    groups: dict[int, dict[str, list[int]]] = {}
    for prefix, graph in graphs.items():
        for number, position in graph.scaled():
            groups.setdefault(number, {}).setdefault(prefix, []).append(position)
    found = []
    for group in groups.values():
        settings = {frozenset(map(graphs[prefix].settings, positions)) for prefix, positions in group.items()}
        if len(settings) > 1:
            found.append([(prefix, position) for prefix, positions in group.items() for position in positions])
    return found


def _refuse_integer_biases(graph: _ScaledGraph, position: int) -> None:
    made = set(graph.node(position).output)
    kinds = {number: tensor.data_type for number, tensor in graph.exact.constants.items()}
    integers = {name for name, number in graph.exact.tensors.items() if kinds.get(number) == TensorProto.INT32}
    nodes = graph.model.graph.node
    stored = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear" and node.input[0] in integers}
    layer = next((node for node in nodes if made & set(node.input) and stored & set(node.input)), None)
    if layer is not None:
        raise EdgetlError(
            f"the INT32 bias of {layer.name or layer.output[0]} in {graph.prefix} is stored in steps of a scale that "
            "would change; quantise the models with one calibration table, or with biases in float (edgetl prepare "
            "--target tensorrt)"
        )
