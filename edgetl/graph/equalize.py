"""Cross-layer equalisation: channels of a tensor brought to like ranges, without changing what the network computes.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019. Here weights
have a scale for each channel anyway; what gains is the tensor between layers, which has one for all its channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.arrays import BoolArray, Float32Array, Float64Array, IndexArray
from edgetl.config import QdqFormat
from edgetl.graph.metadata import record_division
from edgetl.graph.model import Wiring, attribute, tensors_read, with_outputs
from edgetl.graph.parity import Reference
from edgetl.graph.qdq_placement import place_qdq

# f(s x) = s f(x) for every channel by itself, s > 0. Clip is none: its bound does not move along.
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Add", "Dropout"}
)
_SHARE = 0.75
"""Of the way to equal reach: what channels gain, the weights that read them lose (Xiao et al., "SmoothQuant", ICML
2023), but fitted weights lose less. Of 0.5, 0.75 and 1 it left the least noise on SqueezeNet and Tiny Darknet."""
_FURTHEST = 2.0**-12
"""Of a tensor's reach: a channel that reaches less far is treated as if it did that."""
_OCTAVE = 8
"""Factors in an octave: another processor sums in another order and finds the same ones."""


def equalize(model: onnx.ModelProto, target: QdqFormat, images: Float32Array) -> onnx.ModelProto:
    """The model with channels between its convolutions scaled, and the weights on either side to match.

    Channel c of what lies between is divided by a power of its reach. Results are the same but for float32's rounding.

    Args:
        target: whose INT8 it is for: what counts is how far channels reach in the tensors that it quantises. For
            TensorRT those do not lie before an activation, for ONNX Runtime some do.
        images: float32 [n,3,H,W] in [0,1], on which reach is found.
    """
    wiring = Wiring(model.graph)
    numbers = _numbered(wiring)
    free = _free(wiring, numbers)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantised = [name for name in place_qdq(wiring, target).sources if name in numbers]
    if not (free.any() and quantised):
        return copy
    octaves = np.where(free, _octaves(model, quantised, numbers, len(free), images), 0.0)
    scales = np.exp2(octaves).astype(np.float32)
    weights = dict(_scaled(wiring, {name: scales[own] for name, own in numbers.items()}))
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    made = [node.output[0] for node in wiring.nodes if node.op_type == "Conv" and node.output[0] in numbers]
    record_division(copy, {name: own.tolist() for name in made if (own := octaves[numbers[name]]).any()})
    return copy


def _numbered(wiring: Wiring) -> dict[str, IndexArray]:
    """The channels of tensors that convolutions make, by number: those that must keep one scale have the same."""
    numbers: dict[str, IndexArray] = {}
    links: list[list[tuple[str, str, slice]]] = []
    count = 0
    for node in wiring.nodes:
        links.append(_links(node, numbers))
        channels = _channels(wiring, node, numbers)
        if channels:
            numbers[node.output[0]] = np.arange(count, count + channels)
            count += channels
    while _merge(numbers, [link for of_node in links for link in of_node]):
        pass
    return numbers


def _channels(wiring: Wiring, node: onnx.NodeProto, numbers: Mapping[str, IndexArray]) -> int:
    """Of what a node makes; 0 where they cannot be scaled."""
    if node.op_type == "Conv":
        return int(wiring.array(node.input[1]).shape[0]) if _scalable(wiring, node) else 0
    return max((part.stop for _, _, part in _links(node, numbers)), default=0)


def _scalable(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether no other node reads the weights of a Conv."""
    return node.op_type == "Conv" and all(
        name in wiring.constants and wiring.producer(name) is None and len(wiring.consumers[name]) == 1
        for name in node.input[1:]
        if name
    )


def _links(node: onnx.NodeProto, numbers: Mapping[str, IndexArray]) -> list[tuple[str, str, slice]]:
    """Each tensor that a node hands on as it is or homogeneously, and which channels of its output those are."""
    if node.op_type in _HOMOGENEOUS:
        read = list(node.input) if node.op_type == "Add" else list(node.input[:1])
    elif node.op_type == "Concat" and attribute(node, "axis", 0) == 1:
        read = list(node.input)
    else:
        return []
    if not all(name in numbers for name in read):
        return []
    sizes = [len(numbers[name]) for name in read]
    if node.op_type != "Concat":
        return [(name, node.output[0], slice(0, sizes[0])) for name in read] if len(set(sizes)) == 1 else []
    ends = np.cumsum(sizes).tolist()
    return [(name, node.output[0], slice(end - size, end)) for name, size, end in zip(read, sizes, ends, strict=True)]


def _merge(numbers: dict[str, IndexArray], links: Sequence[tuple[str, str, slice]]) -> bool:
    """Hand the lesser number on both ways of every link; whether that changed any."""
    changed = False
    for name, made, part in links:
        least = np.minimum(numbers[name], numbers[made][part])
        if (least != numbers[name]).any() or (least != numbers[made][part]).any():
            numbers[name], changed = least, True
            numbers[made][part] = least
    return changed


def _free(wiring: Wiring, numbers: Mapping[str, IndexArray]) -> BoolArray:
    """By number: whether all that reads these channels are convolutions whose weights can be scaled to match."""
    free = np.zeros(sum(map(len, numbers.values())), bool)
    others = set(wiring.outputs)
    for node in wiring.nodes:
        fit = {name for name, *_ in _links(node, numbers)}
        if _scalable(wiring, node) and node.input[0] in numbers:
            free[numbers[node.input[0]]] = True
            fit.add(node.input[0])
        others.update(name for name in tensors_read(node) if name not in fit)
    for name in others & numbers.keys():
        free[numbers[name]] = False
    return free


def _octaves(
    model: onnx.ModelProto, tensors: Sequence[str], numbers: Mapping[str, IndexArray], count: int, images: Float32Array
) -> Float64Array:
    """By number: what channels are divided by. Of one image at a time, tensors are held."""
    reference = Reference(with_outputs(model, tensors), optimised=False, threads=1)
    reach = np.zeros(count)
    for position in range(len(images)):
        for name, value in reference.run(images[position : position + 1]).items():
            np.maximum.at(reach, numbers[name], np.abs(value).max(axis=(0, *range(2, value.ndim))))
    least = np.zeros(count)
    for name in tensors:
        np.maximum.at(least, numbers[name], _FURTHEST * reach[numbers[name]].max())
    reach = np.maximum(reach, least)
    octaves = np.log2(np.where(reach > 0, reach, 1.0))
    return np.asarray(np.rint(_SHARE * _OCTAVE * octaves) / _OCTAVE)


def _scaled(wiring: Wiring, scales: Mapping[str, Float32Array]) -> Iterator[tuple[str, Float32Array]]:
    """Weights and biases that change, by name."""
    for position, node in enumerate(wiring.nodes):
        if not _scalable(wiring, node):
            continue
        weight, *bias = (wiring.array(name) for name in node.input[1:] if name)
        if node.output[0] in scales:
            made = scales[node.output[0]]
            weight = weight / made.reshape(-1, *[1] * (weight.ndim - 1))
            if bias:
                yield node.input[2], np.asarray(bias[0] / made, np.float32)
        if node.input[0] in scales:
            weight = weight * _per_weight(wiring, position, weight, scales[node.input[0]])
        yield node.input[1], np.asarray(weight, np.float32)


def _per_weight(wiring: Wiring, position: int, weight: Float32Array, channels: Float32Array) -> Float32Array:
    """A value of each input channel, spread to the weights [outputs, inputs of a group, *kernel] that read it."""
    groups = attribute(wiring.nodes[position], "group", 1)
    own = channels.reshape(groups, 1, weight.shape[1])
    spread = np.broadcast_to(own, (groups, weight.shape[0] // groups, weight.shape[1]))
    return spread.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
