"""Weights on the steps of INT8, chosen layer by layer so that outputs come nearest to what they are in float.

Rounding to the nearest step is best for a weight alone. On images, inputs of a layer go along with each other, and what
one weight is off another can make up for: see `round_together`. Besides, what a layer reads is off already, by all that
is INT8 before it: so it is fitted to what it reads in INT8 and made in float (Li et al., "GPTAQ: Efficient
Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025, with least squares that hold on to the weights),
and the mean of what is left is taken off its bias (Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction", ICCV 2019, section 4.2). The next layer reads what then comes of it.

The steps are those of the original weights, so whoever quantises fitted ones gets them back: `quantize`, and TensorRT
with a calibration cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgetl.arrays import Float32Array, Float64Array, IndexArray
from edgetl.artifacts.calibration_table import LEVELS, CalibrationTable
from edgetl.config import QdqFormat
from edgetl.graph.gptq import round_together
from edgetl.graph.layerwise_run import Walk
from edgetl.graph.model import FreshNames, Wiring, attribute, with_nodes, with_outputs
from edgetl.graph.parity import Reference
from edgetl.graph.qdq_placement import place_qdq
from edgetl.graph.quantize import QuantizationParameters, activation_scale, output_axis, quantize, weight_steps

_PLACES = 256
"""Of each image, so many places of a tensor are looked at: products of INT8 then add up exactly, even in float32."""
_HELD = 2**29
"""Bytes of tensors between layers, more or less, of all images that are fitted to."""
_FEWEST = 16
"""Images that are fitted to however large they are."""
_WIDEST = 8192
"""Inputs of a layer: with more, its second moments take half a gigabyte, and longer than everything else."""
_HOLD = 10.0
"""How much weights are held on to, in mean squares of an input: of 0.1, 1 and 10 the last did best on two networks."""


@dataclass(frozen=True)
class RoundedWeights:
    """Weights on the steps of INT8 and the bias that goes with them.

    ``weight`` is None where a layer in float keeps its own, ``bias`` where it has no place for one.
    """

    weight: Float32Array | None
    bias: Float32Array | None


def rounded_layers(
    model: onnx.ModelProto,
    table: CalibrationTable,
    target: QdqFormat,
    images: Float32Array,
    excluded: Collection[str] = (),
) -> dict[str, RoundedWeights]:
    """The layers in INT8 with their weights fitted, by the tensor that each makes.

    Left out are those over one or three dimensions, with ``auto_pad``, or with very many inputs. A layer that could be
    INT8 and is not has a bias for what it reads of the others.

    Args:
        table: the ranges in which layers will read their inputs.
        images: float32 [n,3,H,W] in [0,1]; of large ones not all are looked at.
        excluded: layers that stay in float, by the tensor they make.

    Raises:
        EdgetlError: as `quantize` does.
    """
    layers = _layers(model, table, target, excluded)
    if not layers:
        return {}
    stops = tuple(dict.fromkeys(layer.read for layer in layers))
    few = images[: _most(model, stops, images)]
    exact, in_int8 = Walk(model, stops, few), Walk(quantize(model, table, target, excluded), stops, few)
    fitted: dict[str, RoundedWeights] = {}
    for stop in stops:
        group = [layer for layer in layers if layer.read == stop]
        for true, found in zip(exact.to(stop), in_int8.to(stop), strict=True):
            for layer in group:
                layer.add(true, found)
        for layer in group:
            fitted[layer.made] = one = layer.fitted()
            in_int8.replace(layer.made, [one.weight, one.bias])
            layer.forget()
    return fitted


def with_rounded(model: onnx.ModelProto, layers: Mapping[str, RoundedWeights]) -> onnx.ModelProto:
    """The model with other weights and biases in some layers, by the tensor that each makes."""
    names = FreshNames(model.graph)
    constants: list[onnx.TensorProto] = []

    def stored(name: str, value: Float32Array) -> str:
        constants.append(numpy_helper.from_array(value, names.fresh(name)))
        return str(constants[-1].name)

    nodes = []
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        found = layers.get(node.output[0])
        if found is not None:
            if found.weight is not None:
                node.input[1] = stored(f"{node.output[0]}_weight", found.weight)
            if found.bias is not None:
                del node.input[2:]
                node.input.append(stored(f"{node.output[0]}_bias", found.bias))
        nodes.append(node)
    return with_nodes(model, nodes, constants)


def _layers(model: onnx.ModelProto, table: CalibrationTable, target: QdqFormat, kept: Collection[str]) -> list[_Layer]:
    wiring, ranges = Wiring(model.graph), table.by_name()
    placement = place_qdq(wiring, target, kept, table.last_in_int8())
    layers = []
    for position in sorted({*place_qdq(wiring, "tensorrt").layers, *placement.layers}):
        node = wiring.nodes[position]
        found = ranges.get(placement.sources[node.input[0]]) if position in placement.layers else None
        if (found is not None or position not in placement.layers) and _is_known(wiring, node):
            layers.append(_Layer(wiring, node, None if found is None else activation_scale(found, target)))
    return [layer for layer in layers if layer.inputs <= _WIDEST]


def _most(model: onnx.ModelProto, stops: Sequence[str], images: Float32Array) -> int:
    """How many images are held at once: of each, in both graphs, what a layer reads and what it makes."""
    one = Reference(with_outputs(model, stops), optimised=False, threads=1).run(images[:1])
    return max(_FEWEST, _HELD // (4 * max(value.nbytes for value in one.values())))


def _is_known(wiring: Wiring, node: onnx.NodeProto) -> bool:
    if node.op_type != "Conv":
        return True
    explicit = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    return explicit and wiring.array(node.input[1]).ndim == 4


class _Layer:
    """A layer, and what it reads on images: in float, and where layers are INT8 (itself too, if it has a scale).

    Weights are groups x outputs x inputs of a group.
    """

    def __init__(self, wiring: Wiring, node: onnx.NodeProto, scale: QuantizationParameters | None) -> None:
        self._node, self._scale = node, scale
        self.read, self.made = str(node.input[0]), str(node.output[0])
        self._stored = wiring.array(node.input[1])
        self._axis = output_axis(node, self._stored)
        outputs = np.moveaxis(self._stored, self._axis, 0)
        groups = attribute(node, "group", 1)
        self._weight = outputs.reshape(groups, len(outputs) // groups, -1).astype(np.float64)
        self._bias = wiring.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        self.forget()

    @property
    def inputs(self) -> int:
        return int(self._weight.shape[2])

    def forget(self) -> None:
        groups, _, inputs = self._weight.shape
        self._moments: Float64Array | float = 0.0
        self._missing: Float64Array | float = 0.0
        self._steps, self._off = (np.zeros((groups, inputs)) for _ in range(2))
        self._count = 0

    def add(self, exact: Float32Array, found: Float32Array) -> None:
        """What one image gives to read in float, and where layers are INT8, before it is rounded."""
        true, own = self._places(exact), self._places(found)
        self._count += own.shape[1]
        if self._scale is None:
            self._off += (true - own).sum(axis=1)
            return
        steps = _in_steps(own, self._scale)
        off = true - steps * self._scale.scale
        missing = off.astype(np.float64) @ np.swapaxes(self._weight, 1, 2)
        self._moments = self._moments + (np.swapaxes(steps, 1, 2) @ steps).astype(np.float64)
        self._missing = self._missing + np.swapaxes(steps, 1, 2) @ missing
        self._steps += steps.sum(axis=1)
        self._off += off.sum(axis=1)

    def _places(self, tensor: Float32Array) -> Float32Array:
        """What is multiplied with the weights at some places: groups x places x inputs of a group."""
        rows = self._patches(tensor) if self._node.op_type == "Conv" else _some(tensor.reshape(-1, tensor.shape[-1]))
        return np.ascontiguousarray(rows.reshape(len(rows), len(self._weight), -1).swapaxes(0, 1))

    def _patches(self, tensor: Float32Array) -> Float32Array:
        node = self._node
        top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
        kernel, dilations = self._stored.shape[2:], attribute(node, "dilations", [1, 1])
        (down, across), (below, beside) = attribute(node, "strides", [1, 1]), dilations
        reach = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
        padded = np.pad(tensor[0], ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(1, 2))
        windows = windows[:, ::down, ::across, ::below, ::beside]
        rows, columns = np.unravel_index(_places(windows.shape[1] * windows.shape[2]), windows.shape[1:3])
        return np.asarray(windows[:, rows, columns].swapaxes(0, 1))

    def fitted(self) -> RoundedWeights:
        off = np.einsum("goi,gi->go", self._weight, self._off / self._count)
        if self._scale is None:
            return RoundedWeights(None, self._corrected(off))
        steps = weight_steps(self._stored, self._axis).reshape(*self._weight.shape[:2], 1)
        mean = self._steps / self._count
        moments, missing = np.asarray(self._moments), np.asarray(self._missing)
        if self._has_bias:  # which takes the mean, so that weights have to do with the rest alone
            moments = moments - self._count * mean[:, :, None] * mean[:, None, :]
            missing = missing - self._count * mean[:, :, None] * off[:, None, :]
        change = self._change(moments, missing / self._scale.scale)
        whole = round_together(_added(self._weight / steps, change / steps), moments, LEVELS)
        weight = np.asarray(whole * steps, np.float32)
        added = np.einsum("goi,gi->go", weight - self._weight, mean * self._scale.scale)
        return RoundedWeights(self._in_place(weight), self._corrected(off - added))

    def _change(self, moments: Float64Array, missing: Float64Array) -> Float64Array:
        """Of weights, so that they make of INT8 inputs more of what they made of float ones."""
        mean = np.einsum("gii->g", moments) / self.inputs
        hold = _HOLD * np.where(mean > 0, mean, 1.0)[:, None, None] * np.eye(self.inputs)
        return np.swapaxes(np.linalg.solve(moments + hold, missing), 1, 2)

    @property
    def _has_bias(self) -> bool:
        return self._node.op_type != "MatMul"

    def _in_place(self, weight: Float32Array) -> Float32Array:
        moved = np.moveaxis(self._stored, self._axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(weight.reshape(moved), 0, self._axis))

    def _corrected(self, missing: Float64Array) -> Float32Array | None:
        if not self._has_bias:
            return None
        return np.asarray((0.0 if self._bias is None else self._bias) + missing.ravel(), np.float32)


def _in_steps(values: Float32Array, scale: QuantizationParameters) -> Float32Array:
    kind, zero = np.iinfo(scale.zero_point.dtype), int(scale.zero_point)
    return np.asarray(np.clip(np.rint(values / scale.scale), kind.min - zero, kind.max - zero))


def _added(own: Float64Array, change: Float64Array) -> Float64Array:
    """In steps: the largest of each row stays, and none goes beyond it, so that the row keeps its step."""
    most = np.abs(own).max(axis=2, keepdims=True)
    return np.where(np.abs(own) == most, own, np.clip(own + change, -most, most))


def _some(rows: Float32Array) -> Float32Array:
    return rows[_places(len(rows))]


def _places(count: int) -> IndexArray:
    """Some of so many places, spread by the golden ratio: no step that a grid of them could have too."""
    if count <= _PLACES:
        return np.arange(count)
    return np.asarray(np.arange(_PLACES) * 0.6180339887498949 % 1.0 * count, np.intp)
