"""Weights rounded to INT8 layer by layer, so that outputs come nearest to those of the float graph.

Rounding to the nearest step is best for one weight alone. But the inputs of a layer are correlated, so one weight can
make up for the error of another: see `round_together`. Besides, a layer's inputs already have the error of the INT8
layers before it: so the layer is fitted to make its float outputs from its INT8 inputs (Li et al., "GPTAQ: Efficient
Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025, with a ridge towards the original weights), and the
mean error that is left is taken off its bias (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019, section 4.2). The next layer is fitted behind this one.

The steps are those of the original weights, so `quantize`, and TensorRT with a calibration cache, reproduce the fitted
weights exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

# Places of a tensor that are taken of each image: products of INT8 then add up exactly, even in float32.
_PLACES = 256
# Bytes, roughly, of the tensors that are held between layers for all images.
_HELD = 2**29
# Images that are fitted to, however large they are.
_FEWEST = 16
# Inputs of a layer: with more, its second moments take half a gigabyte, and longer than everything else.
_WIDEST = 8192
# The ridge, in mean squares of an input: of 0.1, 1 and 10 the last did best on two networks.
_RIDGE = 10.0


@dataclass(frozen=True)
class RoundedWeights:
    """Weights on the steps of INT8 and the bias for them.

    ``weight`` is None where a layer in float keeps its own, ``bias`` where the node has no input for one.
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
    """The fitted weights and biases of the layers in INT8, by the tensor that each makes.

    Left out are Convs over one or three dimensions or with ``auto_pad``, and layers with very many inputs. A layer that
    could be INT8 and is not gets a bias alone, which makes up for the mean error of its inputs.

    Args:
        table: the ranges in which layers will read their inputs.
        images: float32 [n,3,H,W] in [0,1]; of large ones only the first are used.
        excluded: layers that stay in float, by the tensor they make.

    Raises:
        EdgetlError: as `quantize` does.
    """
    layers = _layers(model, table, target, excluded)
    if not layers:
        return {}
    stops = tuple(dict.fromkeys(layer.read for layer in layers))
    # All images are held at once: of each, in both graphs, what a layer reads and what it makes.
    one = Reference(with_outputs(model, stops), optimised=False, threads=1).run(images[:1])
    few = images[: max(_FEWEST, _HELD // (4 * max(value.nbytes for value in one.values())))]
    exact, in_int8 = Walk(model, stops, few), Walk(quantize(model, table, target, excluded), stops, few)
    fitted: dict[str, RoundedWeights] = {}
    for stop in stops:
        group = [layer for layer in layers if layer.read == stop]
        for true, found in zip(exact.to(stop), in_int8.to(stop), strict=True):
            for layer in group:
                layer.add(true, found)
        for layer in group:
            fitted[layer.made] = rounded = layer.fitted()
            in_int8.replace(layer.made, [rounded.weight, rounded.bias])
            layer.forget()
    return fitted


def with_rounded(model: onnx.ModelProto, layers: Mapping[str, RoundedWeights]) -> onnx.ModelProto:
    """The model with rounded weights and biases in some layers, by the tensor that each makes."""
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
        flat = node.op_type != "Conv" or (
            attribute(node, "auto_pad", b"NOTSET") == b"NOTSET" and wiring.array(node.input[1]).ndim == 4
        )
        if flat and (found is not None or position not in placement.layers):
            layers.append(_Layer(wiring, node, None if found is None else activation_scale(found, target)))
    return [layer for layer in layers if layer.inputs <= _WIDEST]


class _Layer:
    """A layer and sums over its inputs on images, in the float graph and in the INT8 one.

    It is INT8 itself if it has a scale. Weights are groups x outputs x inputs of a group.
    """

    def __init__(self, wiring: Wiring, node: onnx.NodeProto, scale: QuantizationParameters | None) -> None:
        self._node, self._scale = node, scale
        self.read, self.made = str(node.input[0]), str(node.output[0])
        self._stored = wiring.array(node.input[1])
        self._axis = output_axis(node, self._stored)
        outputs = np.moveaxis(self._stored, self._axis, 0)
        groups = attribute(node, "group", 1)
        self._weight = outputs.reshape(groups, len(outputs) // groups, -1).astype(np.float64)
        self.inputs = int(self._weight.shape[2])
        self._has_bias = node.op_type != "MatMul"
        self._bias = wiring.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        self.forget()

    def forget(self) -> None:
        """Drop the sums, so that only the layers of one stop hold theirs."""
        groups, _, inputs = self._weight.shape
        self._moments: Float64Array | float = 0.0
        self._missing: Float64Array | float = 0.0
        self._steps, self._off = (np.zeros((groups, inputs)) for _ in range(2))
        self._count = 0

    def add(self, exact: Float32Array, found: Float32Array) -> None:
        """Add the inputs that one image gives: those of the float graph, and those of the INT8 graph before Q/DQ."""
        true, own = self._patches(exact), self._patches(found)
        self._count += own.shape[1]
        if self._scale is None:
            self._off += (true - own).sum(axis=1)
            return
        kind, zero = np.iinfo(self._scale.zero_point.dtype), int(self._scale.zero_point)
        steps = np.asarray(np.clip(np.rint(own / self._scale.scale), kind.min - zero, kind.max - zero))
        off = true - steps * self._scale.scale
        missing = off.astype(np.float64) @ np.swapaxes(self._weight, 1, 2)
        self._moments = self._moments + (np.swapaxes(steps, 1, 2) @ steps).astype(np.float64)
        self._missing = self._missing + np.swapaxes(steps, 1, 2) @ missing
        self._steps += steps.sum(axis=1)
        self._off += off.sum(axis=1)

    def _patches(self, tensor: Float32Array) -> Float32Array:
        """The inputs that are multiplied with the weights at some places: groups x places x inputs of a group."""
        if self._node.op_type == "Conv":
            top, left, bottom, right = attribute(self._node, "pads", [0, 0, 0, 0])
            strides, dilations = (attribute(self._node, name, [1, 1]) for name in ("strides", "dilations"))
            kernel = self._stored.shape[2:]
            span = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True))
            padded = np.pad(tensor[0], ((0, 0), (top, bottom), (left, right)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(1, 2))
            windows = windows[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
            rows, columns = np.unravel_index(_places(windows.shape[1] * windows.shape[2]), windows.shape[1:3])
            patches = np.asarray(windows[:, rows, columns].swapaxes(0, 1))
        else:
            patches = tensor.reshape(-1, tensor.shape[-1])
            patches = patches[_places(len(patches))]
        return np.ascontiguousarray(patches.reshape(len(patches), len(self._weight), -1).swapaxes(0, 1))

    def fitted(self) -> RoundedWeights:
        """The rounded weights and the bias for all images that were added."""
        off = np.einsum("goi,gi->go", self._weight, self._off / self._count)
        if self._scale is None:
            return RoundedWeights(None, self._corrected(off))
        steps = weight_steps(self._stored, self._axis).reshape(*self._weight.shape[:2], 1)
        mean = self._steps / self._count
        moments, missing = np.asarray(self._moments), np.asarray(self._missing)
        if self._has_bias:  # the bias takes the mean error, so the weights are fitted to the rest
            moments = moments - self._count * mean[:, :, None] * mean[:, None, :]
            missing = missing - self._count * mean[:, :, None] * off[:, None, :]
        mean_square = np.einsum("gii->g", moments) / self.inputs
        ridge = _RIDGE * np.where(mean_square > 0, mean_square, 1.0)[:, None, None] * np.eye(self.inputs)
        change = np.swapaxes(np.linalg.solve(moments + ridge, missing / self._scale.scale), 1, 2)
        # The largest weight of a row stays, and none goes beyond it, so that the row keeps its step.
        own = self._weight / steps
        most = np.abs(own).max(axis=2, keepdims=True)
        changed = np.where(np.abs(own) == most, own, np.clip(own + change / steps, -most, most))
        weight = np.asarray(round_together(changed, moments, LEVELS) * steps, np.float32)
        added = np.einsum("goi,gi->go", weight - self._weight, mean * self._scale.scale)
        # Back to the axes that the node has.
        moved = weight.reshape(np.moveaxis(self._stored, self._axis, 0).shape)
        return RoundedWeights(np.ascontiguousarray(np.moveaxis(moved, 0, self._axis)), self._corrected(off - added))

    def _corrected(self, missing: Float64Array) -> Float32Array | None:
        if not self._has_bias:
            return None
        return np.asarray((0.0 if self._bias is None else self._bias) + missing.ravel(), np.float32)


def _places(count: int) -> IndexArray:
    """Positions of some of so many places, spread by the golden ratio, which has no period in common with a grid."""
    if count <= _PLACES:
        return np.arange(count)
    return np.asarray(np.arange(_PLACES) * 0.6180339887498949 % 1.0 * count, np.intp)
