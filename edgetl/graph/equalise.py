"""Cross-layer equalisation: channels of a tensor brought to like ranges, without changing what the network computes.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019. Here weights
have a scale for each channel anyway; what gains is the tensor between layers, which has one for all its channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.graph.model import Wiring, attribute, with_outputs
from edgetl.graph.parity import Reference

Floats = NDArray[np.float32]

# f(s x) = s f(x) for every channel by itself, s > 0. Clip is none: its bound does not move along.
_HOMOGENEOUS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Add", "Dropout"}
)
_FURTHEST = 6
"""Octaves that a channel is moved at most."""


def equalise(model: onnx.ModelProto, images: Floats) -> onnx.ModelProto:
    """The model with channels between its convolutions scaled, and the weights on either side to match.

    Channel c of what lies between is divided by the square root of its reach, rounded to a power of two: so every
    product and sum is the same number with another exponent, and the results are the same bits. (Half of the way, as
    Xiao et al., "SmoothQuant", ICML 2023: what channels gain, the weights that read them lose.)

    Args:
        images: float32 [n,3,H,W] in [0,1], on which the reach of channels is found: of what layers read, not of what
            lies before an activation.
    """
    wiring = Wiring(model.graph)
    spans = list(_spans(wiring))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not spans:
        return copy
    reach = _reaches(model, [name for span in spans for name in span.read], images)
    weights = {name: wiring.array(name).copy() for span in spans for name in _weights_of(wiring, span)}
    for span in spans:
        _scale(wiring, span, weights, np.max([reach[name] for name in span.read], axis=0))
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy


@dataclass(frozen=True)
class _Span:
    """Tensors whose channels must keep one scale, the convolutions that make them, and those that read some of them."""

    tensors: tuple[str, ...]
    read: tuple[str, ...]
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
    read = dict.fromkeys(wiring.nodes[position].input[0] for position in readers)
    return _Span(tuple(tensors), tuple(read), tuple(makers), tuple(readers))


def _weights_of(wiring: Wiring, span: _Span) -> Iterator[str]:
    for position in span.makers:
        yield from (name for name in wiring.nodes[position].input[1:] if name)
    yield from (wiring.nodes[position].input[1] for position in span.readers)


def _reaches(model: onnx.ModelProto, names: Sequence[str], images: Floats) -> dict[str, Floats]:
    """Of each channel of some tensors, image by image: no more than one image's tensors are held."""
    reference = Reference(with_outputs(model, names), optimised=False, threads=1)
    found: dict[str, Floats] = {}
    for position in range(len(images)):
        for name, value in reference.run(images[position : position + 1]).items():
            largest = np.abs(value).max(axis=(0, *range(2, value.ndim)))
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _scale(wiring: Wiring, span: _Span, weights: dict[str, Floats], reach: Floats) -> None:
    octaves = np.zeros(len(reach))
    octaves[reach > 0] = np.log2(reach[reach > 0]) / 2
    octaves[reach > 0] -= np.median(octaves[reach > 0]) if reach.any() else 0.0
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
