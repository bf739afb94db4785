"""Weights on the steps of INT8, chosen so that not they but the outputs of their layer are nearest to what they were.

Rounding to the nearest step is best for a weight alone. On images, inputs of a layer go along with each other, and what
one weight is off another can make up for: see `round_together`. What is left in the mean is taken off the bias (Nagel
et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2).

The steps are those of the original weights, so whoever quantises fitted ones gets them back: `quantise`, and TensorRT
with a calibration cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.artifacts.calibration import LEVELS, CalibrationTable
from edgetl.graph.model import FreshNames, Wiring, attribute, with_nodes, with_outputs
from edgetl.graph.parity import Reference
from edgetl.graph.placement import place
from edgetl.graph.quantise import activation_scale, output_axis, weight_steps
from edgetl.graph.rounding import round_together

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_PLACES = 256
"""Of each image, so many places of a tensor are looked at: products of INT8 then add up exactly, even in float32."""
_AT_ONCE = 2**28
"""Bytes of second moments: layers are fitted in groups, with one pass of the images for each."""
_MOST = 2**29
"""A layer whose second moments need more is not fitted: it would take longer than everything else."""


@dataclass(frozen=True)
class Fitted:
    """Weights on the steps of INT8 and the bias that goes with them; None where a layer has no place for one."""

    weight: Floats
    bias: Floats | None


def fitted_layers(model: onnx.ModelProto, table: CalibrationTable, images: Floats) -> dict[str, Fitted]:
    """The layers in INT8 with their weights fitted, by the tensor that each makes.

    Left out are those over one or three dimensions, with ``auto_pad``, or with very many inputs.

    Args:
        table: the ranges in which layers will read their inputs; one without is left out.
        images: float32 [n,3,H,W] in [0,1].
    """
    wiring, ranges = Wiring(model.graph), table.by_name()
    placement = place(wiring, "tensorrt", last=table.last_in_int8())
    layers = []
    for position in placement.layers:
        node = wiring.nodes[position]
        found = ranges.get(placement.sources[node.input[0]])
        if found is not None and _is_known(wiring, node):
            layers.append(_Layer(wiring, node, activation_scale(found, "tensorrt").scale))
    fitted: dict[str, Fitted] = {}
    for group in _groups([layer for layer in layers if layer.bytes <= _MOST]):
        _watch(model, group, images)
        fitted.update((layer.node.output[0], layer.fitted()) for layer in group)
        for layer in group:
            layer.forget()  # what was seen of it: gigabytes, of a large network
    return fitted


def with_fitted(model: onnx.ModelProto, layers: Mapping[str, Fitted]) -> onnx.ModelProto:
    """The model with other weights and biases in some layers, by the tensor that each makes."""
    names = FreshNames(model.graph)
    constants: list[onnx.TensorProto] = []

    def stored(name: str, value: Floats) -> str:
        constants.append(numpy_helper.from_array(value, names.fresh(name)))
        return str(constants[-1].name)

    nodes = []
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        found = layers.get(node.output[0])
        if found is not None:
            node.input[1] = stored(f"{node.output[0]}_weight", found.weight)
            if found.bias is not None:
                del node.input[2:]
                node.input.append(stored(f"{node.output[0]}_bias", found.bias))
        nodes.append(node)
    return with_nodes(model, nodes, constants)


def _is_known(wiring: Wiring, node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv":
        return True
    explicit = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return explicit and wiring.array(node.input[1]).ndim == 4


class _Layer:
    """A layer, and of what it reads on images, in steps of INT8, the sums and second moments.

    Weights are groups x outputs x inputs of a group.
    """

    def __init__(self, wiring: Wiring, node: onnx.NodeProto, step: np.float32) -> None:
        self.node, self._step = node, step
        self._stored = wiring.array(node.input[1])
        self._axis = output_axis(node, self._stored)
        outputs = np.moveaxis(self._stored, self._axis, 0)
        groups = attribute(node, "group", 1)
        self._weight = outputs.reshape(groups, len(outputs) // groups, -1)
        self._bias = wiring.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        self.forget()

    @property
    def bytes(self) -> int:
        groups, _, inputs = self._weight.shape
        return groups * inputs * inputs * np.dtype(np.float64).itemsize

    def forget(self) -> None:
        self._moments: Doubles | None = None
        self._sums = np.zeros(1)
        self._count = 0

    def add(self, tensor: Floats) -> None:
        """Of one image."""
        read = np.clip(np.rint(self._read(tensor) / self._step), -LEVELS, LEVELS)
        moments = np.swapaxes(read, 1, 2) @ read
        self._moments = moments.astype(np.float64) if self._moments is None else self._moments + moments
        self._sums = self._sums + read.sum(axis=1, dtype=np.float64)
        self._count += read.shape[1]

    def _read(self, tensor: Floats) -> Floats:
        """What is multiplied with the weights at some places: groups x places x inputs of a group."""
        rows = self._patches(tensor) if self.node.op_type == "Conv" else _some(tensor.reshape(-1, tensor.shape[-1]))
        return np.ascontiguousarray(rows.reshape(len(rows), len(self._weight), -1).swapaxes(0, 1))

    def _patches(self, tensor: Floats) -> Floats:
        node = self.node
        top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
        kernel, dilations = self._stored.shape[2:], attribute(node, "dilations", [1, 1])
        (down, across), (below, beside) = attribute(node, "strides", [1, 1]), dilations
        reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
        padded = np.pad(tensor[0], ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
        windows = windows[:, ::down, ::across, ::below, ::beside]
        rows, columns = np.unravel_index(_places(windows.shape[1] * windows.shape[2]), windows.shape[1:3])
        return np.asarray(windows[:, rows, columns].swapaxes(0, 1))

    def fitted(self) -> Fitted:
        steps = weight_steps(self._stored, self._axis).reshape(*self._weight.shape[:2], 1)
        assert self._moments is not None, "images were shown"
        whole = round_together((self._weight / steps).astype(np.float64), self._moments, LEVELS)
        weight = np.asarray(whole * steps, np.float32)
        off = np.einsum("goi,gi->go", weight - self._weight, self._step * self._sums / self._count)
        return Fitted(self._in_place(weight), self._corrected(off.ravel()))

    def _in_place(self, weight: Floats) -> Floats:
        moved = np.moveaxis(self._stored, self._axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(weight.reshape(moved), 0, self._axis))

    def _corrected(self, off: Doubles) -> Floats | None:
        if self.node.op_type == "MatMul":
            return None
        return np.asarray((0.0 if self._bias is None else self._bias) - off, np.float32)


def _groups(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    group: list[_Layer] = []
    for layer in layers:
        if group and sum(one.bytes for one in group) + layer.bytes > _AT_ONCE:
            yield group
            group = []
        group.append(layer)
    if group:
        yield group


def _watch(model: onnx.ModelProto, layers: Sequence[_Layer], images: Floats) -> None:
    """Image by image and on one thread, like calibration, so that the same images give the same bits."""
    names = tuple(dict.fromkeys(layer.node.input[0] for layer in layers))
    reference = Reference(with_outputs(model, names), optimised=False, threads=1)
    for position in range(len(images)):
        found = reference.run(images[position : position + 1])
        for layer in layers:
            layer.add(found[layer.node.input[0]])


def _some(rows: Floats) -> Floats:
    return rows[_places(len(rows))]


def _places(count: int) -> NDArray[np.intp]:
    """Some of so many places, spread by the golden ratio: no step that a grid of them could have too."""
    if count <= _PLACES:
        return np.arange(count)
    return np.asarray(np.arange(_PLACES) * 0.6180339887498949 % 1.0 * count, np.intp)
