"""Cross-layer equalisation: channels of a tensor brought to like ranges, without changing what the network computes.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019. Here weights
have a scale for each channel anyway; the gain is in the tensor between layers, which has one scale for all channels.
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
# Fraction of the way to equal ranges: what channels gain, the weights that read them lose (Xiao et al., "SmoothQuant",
# ICML 2023), but fitted weights lose less. Of 0.5, 0.75 and 1 it left the least noise on SqueezeNet and Tiny Darknet.
_FRACTION = 0.75
# Of a tensor's largest magnitude: a channel of smaller values, dead ones too, is treated as if it came to that.
_SMALLEST = 2.0**-12
# Factors in an octave: so coarse that a processor that sums in another order finds the same factors.
_OCTAVE = 8


def equalize(model: onnx.ModelProto, target: QdqFormat, images: Float32Array) -> onnx.ModelProto:
    """The model with the channels between its convolutions scaled to like ranges, and the weights to match.

    Each channel is divided by a power of its largest magnitude. Results are the same but for float32's rounding.

    Args:
        target: the QDQ format: ranges are found in the tensors that it quantises. For TensorRT those do not lie
            before an activation, for ONNX Runtime some do.
        images: float32 [n,3,H,W] in [0,1], on which ranges are found.
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
    """A number for each channel of the tensors that convolutions make; channels that must share a scale share it."""
    numbers: dict[str, IndexArray] = {}
    links: list[tuple[str, str, slice]] = []
    count = 0
    for node in wiring.nodes:
        own = _links(node, numbers)
        links += own
        channels = max((part.stop for _, _, part in own), default=0)
        if _scalable(wiring, node):
            channels = len(wiring.array(node.input[1]))
        if channels:
            numbers[node.output[0]] = np.arange(count, count + channels)
            count += channels
    changed = True
    while changed:  # an Add far behind may join channels far ahead, so until no number falls any more
        changed = False
        for name, made, part in links:
            least = np.minimum(numbers[name], numbers[made][part])
            if (least != numbers[name]).any() or (least != numbers[made][part]).any():
                numbers[name], changed = least, True
                numbers[made][part] = least
    return numbers


def _scalable(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a node is a Conv whose weights no other node reads, so that they can change."""
    return node.op_type == "Conv" and all(
        name in wiring.constants and wiring.producer(name) is None and len(wiring.consumers[name]) == 1
        for name in node.input[1:]
        if name
    )


def _links(node: onnx.NodeProto, numbers: Mapping[str, IndexArray]) -> list[tuple[str, str, slice]]:
    """Inputs whose scale a node passes on: each one, the output, and the channels of the output that it becomes."""
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


def _free(wiring: Wiring, numbers: Mapping[str, IndexArray]) -> BoolArray:
    """For each number, whether only convolutions whose weights can be scaled read these channels."""
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
    """For each number, by how many octaves its channels are divided. Images run one at a time, to bound memory."""
    reference = Reference(with_outputs(model, tensors), optimised=False, threads=1)
    reach = np.zeros(count)
    for position in range(len(images)):
        for name, value in reference.run(images[position : position + 1]).items():
            np.maximum.at(reach, numbers[name], np.abs(value).max(axis=(0, *range(2, value.ndim))))
    least = np.zeros(count)
    for name in tensors:
        np.maximum.at(least, numbers[name], _SMALLEST * reach[numbers[name]].max())
    reach = np.maximum(reach, least)
    octaves = np.log2(np.where(reach > 0, reach, 1.0))
    return np.asarray(np.rint(_FRACTION * _OCTAVE * octaves) / _OCTAVE)


def _scaled(wiring: Wiring, scales: Mapping[str, Float32Array]) -> Iterator[tuple[str, Float32Array]]:
    """The weights and biases that change, each with its name."""
    for node in wiring.nodes:
        if not _scalable(wiring, node):
            continue
        weight, *bias = (wiring.array(name) for name in node.input[1:] if name)
        if node.output[0] in scales:
            made = scales[node.output[0]]
            weight = weight / made.reshape(-1, *[1] * (weight.ndim - 1))
            if bias:
                yield node.input[2], np.asarray(bias[0] / made, np.float32)
        if node.input[0] in scales:
            # Outputs of a group read that group's channels alone: [outputs, inputs of a group, *kernel].
            groups, (outputs, inputs, *kernel) = attribute(node, "group", 1), weight.shape
            read = scales[node.input[0]].reshape(groups, 1, inputs)
            spread = np.broadcast_to(read, (groups, outputs // groups, inputs))
            weight = weight * spread.reshape(outputs, inputs, *[1] * len(kernel))
        yield node.input[1], np.asarray(weight, np.float32)
