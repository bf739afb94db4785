"""Cross-layer equalisation: channels of a tensor brought to like ranges, without changing what the network computes.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019. Here weights
have a scale for each channel anyway; what gains is the tensor between layers, which has one for all its channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.graph.model import Wiring, attribute
from edgetl.graph.noise import results

Floats = NDArray[np.float32]

# f(s x) = s f(x) for every channel by itself, s > 0. Clip is none: its bound does not move along.
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Add", "Dropout"}
)
_FURTHEST = 6
"""Octaves that a channel is moved at most."""


def has_depthwise(model: onnx.ModelProto) -> bool:
    """Whether the network has convolutions of one channel each, whose channels differ most."""
    return any(node.op_type == "Conv" and attribute(node, "group", 1) > 1 for node in model.graph.node)


def equalise(model: onnx.ModelProto, images: Floats) -> onnx.ModelProto:
    """The model with channels between its convolutions scaled, and the weights on either side to match.

    Channel c of what lies between is divided by s = sqrt(reach of c / largest weight that reads c), rounded to a power
    of two: so every product and sum is the same number with another exponent, and the results are the same bits.

    Args:
        images: float32 [n,3,H,W] in [0,1], on which the reach of channels is found.
    """
    wiring = Wiring(model.graph)
    spans = list(_spans(wiring))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not spans:
        return copy
    reach = results(model, images, [name for span in spans for name in span.tensors])
    weights = {name: wiring.array(name).copy() for span in spans for name in _weights_of(wiring, span)}
    for span in spans:
        largest = np.max([np.abs(reach[name]).max(axis=(0, *range(2, reach[name].ndim))) for name in span.tensors], 0)
        _scale(wiring, span, weights, largest)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy


@dataclass(frozen=True)
class _Span:
    """Tensors whose channels must keep one scale, the convolutions that make them, and those that read them."""

    tensors: tuple[str, ...]
    makers: tuple[int, ...]
    readers: tuple[int, ...]


def _spans(wiring: Wiring) -> Iterator[_Span]:
    taken: set[str] = set()
    stored = {tensor for tensor in wiring.constants if _sole_use(wiring, tensor)}
    for node in wiring.nodes:
        if node.op_type == "Conv" and node.output[0] not in taken:
            span = _span(wiring, node.output[0])
            taken.update(span.tensors)
            ends = [wiring.nodes[position] if position >= 0 else None for position in (*span.makers, *span.readers)]
            closed = span.readers and all(end is not None and end.op_type == "Conv" for end in ends)
            if closed and not wiring.outputs & set(span.tensors):
                used = {name for end in ends if end is not None for name in end.input[1:] if name}
                if used <= stored:
                    yield span


def _sole_use(wiring: Wiring, name: str) -> bool:
    """Whether a constant is an initializer that one node reads, so that it can be scaled for it."""
    return wiring.producer(name) is None and len(wiring.consumers.get(name, [])) == 1


def _span(wiring: Wiring, start: str) -> _Span:
    tensors: dict[str, None] = {}
    makers: dict[int, None] = {}
    readers: dict[int, None] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in tensors:
            continue
        tensors[name] = None
        maker = wiring.producers.get(name, -1)
        if maker >= 0 and wiring.nodes[maker].op_type in _HOMOGENEOUS:
            waiting.extend(wiring.nodes[maker].input)
        else:
            makers[maker] = None
        for reader in wiring.consumers.get(name, []):
            if wiring.nodes[reader].op_type in _HOMOGENEOUS:
                waiting.extend((*wiring.nodes[reader].input, *wiring.nodes[reader].output))
            else:
                readers[reader] = None
    return _Span(tuple(tensors), tuple(makers), tuple(readers))


def _weights_of(wiring: Wiring, span: _Span) -> Iterator[str]:
    for position in span.makers:
        yield from (name for name in wiring.nodes[position].input[1:] if name)
    yield from (wiring.nodes[position].input[1] for position in span.readers)


def _scale(wiring: Wiring, span: _Span, weights: dict[str, Floats], reach: Floats) -> None:
    strongest = np.max([_reading(wiring, position, weights) for position in span.readers], axis=0)
    alive = (reach > 0) & (strongest > 0)
    octaves = np.zeros(len(reach))
    octaves[alive] = np.log2(reach[alive] / strongest[alive]) / 2
    octaves[alive] -= np.median(octaves[alive]) if alive.any() else 0.0
    scale = np.exp2(np.clip(np.rint(octaves), -_FURTHEST, _FURTHEST)).astype(np.float32)
    for position in span.makers:
        for name in wiring.nodes[position].input[1:]:
            if name:
                weights[name] /= scale.reshape(-1, *[1] * (weights[name].ndim - 1))
    for position in span.readers:
        name = wiring.nodes[position].input[1]
        weights[name] *= _per_weight(wiring, position, weights[name], scale)


def _per_weight(wiring: Wiring, position: int, weight: Floats, channels: Floats) -> Floats:
    """A value of each input channel, spread to the weights [outputs, inputs of a group, *kernel] that read it."""
    groups = attribute(wiring.nodes[position], "group", 1)
    own = channels.reshape(groups, 1, weight.shape[1])
    spread = np.broadcast_to(own, (groups, weight.shape[0] // groups, weight.shape[1]))
    return spread.reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))


def _reading(wiring: Wiring, position: int, weights: dict[str, Floats]) -> Floats:
    """The largest weight that reads each input channel."""
    weight = weights[wiring.nodes[position].input[1]]
    groups = attribute(wiring.nodes[position], "group", 1)
    largest = np.abs(weight).max(axis=tuple(range(2, weight.ndim)), initial=0.0)
    return np.asarray(largest.reshape(groups, -1, weight.shape[1]).max(axis=1).ravel())
