"""INT8 as explicit QuantizeLinear/DequantizeLinear (Q/DQ) nodes, in the QDQ format of the runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.arrays import AnyArray, Float32Array
from edgetl.artifacts.calibration_table import CalibrationTable, TensorRange
from edgetl.config import QdqFormat
from edgetl.errors import EdgetlError
from edgetl.graph.model import FreshNames, Wiring, attribute, opset, with_nodes
from edgetl.graph.qdq_placement import QdqPlacement, place_qdq

_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
# Half of what INT32 holds, so that rounding and the kernel's own sum have room.
_BIAS_LIMIT = np.float32(2**30)


def quantize(
    model: onnx.ModelProto, table: CalibrationTable, target: QdqFormat, excluded: Collection[str] = ()
) -> onnx.ModelProto:
    """The model with Q/DQ nodes around the trunk's layers; heads and normalisation stay in float.

    Last layers become INT8 where the table says so. Weights are symmetric INT8 per output channel, stored as INT8.
    Activations are symmetric INT8 (``tensorrt``) or asymmetric UINT8 with INT32 biases (``onnxruntime``). Inputs,
    outputs, metadata and opset are kept.

    Args:
        excluded: layers that stay in float, by the tensor they make.

    Raises:
        EdgetlError: the model is quantised or FP16 already, its opset is below 13 (which brought per-channel
            Q/DQ), it has no layer to quantise, or the table lacks a tensor or holds an impossible range.
    """
    _refuse_unfit(model)
    placement = place_qdq(Wiring(model.graph), target, excluded, table.last_in_int8())
    if not placement.layers:
        raise EdgetlError("the graph has no Conv, Gemm or MatMul with constant weights to quantise; keep it in FP32")
    ranges = table.by_name()
    missing = next((source for source in placement.sources.values() if source not in ranges), None)
    if missing is not None:
        raise EdgetlError(f"the calibration table has no range for {missing!r}; calibrate this graph again")
    scales = {tensor: activation_scale(ranges[source], target) for tensor, source in placement.sources.items()}
    return _Rewriter(model, placement, scales, biases=target == "onnxruntime").rewrite()


def qdq_format(model: onnx.ModelProto) -> QdqFormat | None:
    """The QDQ format of a graph: symmetric activations are TensorRT's; None where it has no Q/DQ nodes."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zeros = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2]
    if not zeros:
        return None
    return "onnxruntime" if any(kinds.get(zero) == TensorProto.UINT8 for zero in zeros) else "tensorrt"


def _refuse_unfit(model: onnx.ModelProto) -> None:
    found = next(
        (n.op_type for n in model.graph.node if n.op_type in _QUANTISED or n.op_type.startswith("QLinear")), ""
    )
    if found:
        raise EdgetlError(f"the graph is quantised already (it has {found}); give the FP32 graph it was made from")
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer):
        raise EdgetlError("the graph is FP16 already; give the FP32 graph it was made from")
    if opset(model) < 13:
        raise EdgetlError(f"the graph uses opset {opset(model)}, INT8 needs 13 or later; export it again with opset 17")


@dataclass(frozen=True)
class QuantizationParameters:
    """The scale of a quantised activation, and the integer (of its type) that stands for 0."""

    scale: np.float32
    zero_point: AnyArray


def activation_scale(found: TensorRange, target: QdqFormat) -> QuantizationParameters:
    """The scale and zero point of a range: symmetric INT8 (``tensorrt``) or asymmetric UINT8 (``onnxruntime``).

    Raises:
        EdgetlError: an end of the range is not finite, or 0 lies outside it.
    """
    if not (np.isfinite(found.amax) and found.low <= 0.0 <= found.high):
        raise EdgetlError(
            f"the calibration table gives {found.name!r} the range {found.low} to {found.high}, expected finite ends "
            "on either side of 0; calibrate this graph again"
        )
    width = found.amax / 127 if target == "tensorrt" else (found.high - found.low) / 255
    # A tensor that was always zero has no range; any scale represents it exactly.
    scale = np.float32(width) if np.float32(width) > 0.0 else np.float32(1.0)
    if target == "tensorrt":
        return QuantizationParameters(scale, np.array(0, np.int8))
    return QuantizationParameters(scale, np.array(np.clip(np.rint(-found.low / scale), 0, 255), np.uint8))


class _Rewriter:
    """Writes a quantised copy of a model. Nodes and tensors keep their order, so that bytes are reproducible."""

    def __init__(
        self,
        model: onnx.ModelProto,
        placement: QdqPlacement,
        activations: Mapping[str, QuantizationParameters],
        biases: bool,
    ) -> None:
        self._model = model
        self._wiring = Wiring(model.graph)
        self._placement = placement
        self._activations = activations
        self._biases = biases
        self._names = FreshNames(model.graph)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._copies: dict[str, str] = {}

    def rewrite(self) -> onnx.ModelProto:
        for value in self._model.graph.input:
            self._copy_activation(value.name)
        for position, original in enumerate(self._wiring.nodes):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            for slot, name in enumerate(original.input):
                if (position, slot) in self._placement.slots:
                    node.input[slot] = self._copies[name]
            if position in self._placement.layers:
                input_scale = self._activations[original.input[0]].scale
                weight = self._finite(node.input[1])
                axis = output_axis(node, weight)
                bias = self._finite(node.input[2]) if self._biases and len(node.input) > 2 and node.input[2] else None
                scale = _weight_scale(weight, axis, bias, input_scale)
                along = scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
                # Without -128: TensorRT wants symmetric INT8, and the scale brings the largest weight to 127.
                quantised = np.clip(np.rint(weight / along), -127, 127).astype(np.int8)
                node.input[1] = self._constant_dequantised(node.input[1], quantised, scale, axis)
                if bias is not None:
                    steps = np.rint(bias / (input_scale * scale)).astype(np.int32)
                    node.input[2] = self._constant_dequantised(node.input[2], steps, input_scale * scale, 0)
            self._nodes.append(node)
            for name in original.output:
                self._copy_activation(name)
        return with_nodes(self._model, self._nodes, self._initializers)

    def _copy_activation(self, tensor: str) -> None:
        if tensor in self._activations:
            found = self._activations[tensor]
            parameters = self._parameters(tensor, np.array(found.scale), found.zero_point)
            quantised = self._node("QuantizeLinear", [tensor, *parameters], f"{tensor}_quantized")
            self._copies[tensor] = self._node("DequantizeLinear", [quantised, *parameters], f"{tensor}_dequantized")

    def _finite(self, name: str) -> Float32Array:
        value = self._wiring.array(name)
        if not np.isfinite(value).all():
            raise EdgetlError(f"weight {name!r} holds NaN or infinity; train or export the model again")
        return value

    def _constant_dequantised(self, name: str, steps: AnyArray, scale: Float32Array, axis: int) -> str:
        stored = self._constant(f"{name}_quantized", steps)
        parameters = self._parameters(name, scale, np.zeros(scale.shape, steps.dtype))
        return self._node("DequantizeLinear", [stored, *parameters], f"{name}_dequantized", axis)

    def _parameters(self, name: str, scale: Float32Array, zero_point: AnyArray) -> list[str]:
        return [self._constant(f"{name}_scale", scale), self._constant(f"{name}_zero_point", zero_point)]

    def _constant(self, name: str, value: AnyArray) -> str:
        name = self._names.fresh(name)
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, axis: int | None = None) -> str:
        output = self._names.fresh(output)
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, axis=axis))
        return output


def output_axis(node: onnx.NodeProto, weight: Float32Array) -> int:
    """The axis of a layer's weight that counts its outputs."""
    last = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    return weight.ndim - 1 if last else 0


def weight_steps(weight: Float32Array, axis: int) -> Float32Array:
    """The INT8 scale of a weight for each position along the axis."""
    return _weight_scale(weight, axis, None, np.float32(1))


def _weight_scale(
    weight: Float32Array, axis: int, bias: Float32Array | None, activation_scale: np.float32
) -> Float32Array:
    """The scale of each output channel: its largest weight / 127.

    A bias is stored in steps of this scale x ``activation_scale``; where it would not fit INT32, the scale grows.
    """
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    scale = np.abs(weight).max(axis=others, initial=0.0) / np.float32(127)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (activation_scale * _BIAS_LIMIT))
    # A channel of zeros, or of weights so small that their products vanish in float32, is exact at any step.
    smallest = np.finfo(np.float32).tiny / min(activation_scale, np.float32(1))
    return np.asarray(np.where(scale > smallest, scale, 1), np.float32)
