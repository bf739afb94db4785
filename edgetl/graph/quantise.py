"""INT8 as explicit QuantizeLinear/DequantizeLinear (Q/DQ) nodes, spelled for the runtime that will execute them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.calibration import CalibrationTable, TensorRange
from edgetl.errors import EdgetlError
from edgetl.graph.model import FreshNames, Wiring, attribute, opset, with_nodes

Target = Literal["tensorrt", "onnxruntime"]

# Their output holds values of their input, so it takes the input's range and runtimes run them on INT8 as they are.
_SAME_VALUES = frozenset(
    {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split"}
)
_UNARY = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "AveragePool", "GlobalAveragePool"}
)
_JOINS = frozenset({"Add", "Mul", "Concat"})
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_BIAS_LIMIT = np.float32(2**30)


@dataclass(frozen=True)
class Placement:
    """Where Q/DQ goes in a graph.

    ``layers``: positions of the nodes whose weights become INT8. ``slots``: the (node, input) pairs that read a
    quantised copy of their tensor. ``sources``: each tensor that has such a copy, and the one whose range it takes.
    """

    layers: tuple[int, ...]
    slots: frozenset[tuple[int, int]]
    sources: dict[str, str]


def place(wiring: Wiring, target: Target) -> Placement:
    """Decide where Q/DQ goes, from the graph alone.

    ``tensorrt``: at the input of every layer, and at one input of a residual Add; nothing at outputs. That is what
    NVIDIA's placement recommendations ask for: weighted layers fuse with the activation and the addition behind
    them only while no Q/DQ lies between. One pair per tensor, shared by its readers: the tensor is then written
    once, as INT8, by the layer that makes it.

    ``onnxruntime``: at inputs and outputs of every op that has an INT8 kernel, because ONNX Runtime fuses
    DQ-op-Q as a whole and computes in float where one of them is missing. After Conv-Relu only behind the Relu,
    which the range makes redundant. What lies between the last layer and the heads stays in float: pooling
    averages the quantisation error away, and quantising again would bring it back.
    """
    layers = [position for position, node in enumerate(wiring.nodes) if _is_layer(wiring, position, node)]
    slots = {(position, 0) for position in layers}
    if target == "tensorrt":
        slots |= set(_residual_slots(wiring, frozenset(layers)))
    else:
        slots |= set(_cpu_slots(wiring, frozenset(layers)))
    tensors = dict.fromkeys(wiring.nodes[position].input[slot] for position, slot in sorted(slots))
    return Placement(tuple(layers), frozenset(slots), {name: _source(wiring, name) for name in tensors})


def _is_layer(wiring: Wiring, position: int, node: onnx.NodeProto) -> bool:
    """A Conv, Gemm or MatMul of the trunk with constant weights, in the form that INT8 kernels take."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or position in wiring.heads or node.input[0] in wiring.constants:
        return False
    if any(name and name not in wiring.constants for name in node.input[1:]):
        return False
    weight, *bias = (wiring.constants[name] for name in node.input[1:] if name)
    if weight.data_type != TensorProto.FLOAT or any(len(tensor.dims) != 1 for tensor in bias):
        return False
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0
        return plain and not attribute(node, "transA", 0)
    return node.op_type == "Conv" or len(weight.dims) == 2


def _source(wiring: Wiring, tensor: str) -> str:
    maker = wiring.producer(tensor)
    while maker is not None and maker.op_type in _SAME_VALUES:
        tensor = maker.input[0]
        maker = wiring.producer(tensor)
    return tensor


def _residual_slots(wiring: Wiring, layers: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The shortcut of every Add that follows a Conv; the Conv's own branch stays bare and fuses with the Add."""
    read_by_layers = {wiring.nodes[position].input[0] for position in layers}

    def preference(tensor: str) -> tuple[bool, bool, int]:
        maker = wiring.producers.get(tensor, -1)
        origin = wiring.producers.get(wiring.nodes[maker].input[0], -1) if maker in layers else maker
        return tensor not in read_by_layers, maker in layers, origin

    for position, node in enumerate(wiring.nodes):
        if node.op_type != "Add" or position in wiring.heads or wiring.constants.keys() & set(node.input):
            continue
        fusable = [
            wiring.producers.get(name) in layers and wiring.sole_consumer(name) == position for name in node.input
        ]
        if any(fusable):
            yield position, min((0, 1), key=lambda slot: preference(node.input[slot]))


def _cpu_slots(wiring: Wiring, layers: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Every reader of a tensor that ONNX Runtime makes or reads with an INT8 kernel."""
    spreading = _spreading(wiring, layers)
    before_layers = _tensors_before(wiring, layers)
    made: set[str] = set()
    for position, node in enumerate(wiring.nodes):
        if position in layers and node.op_type == "Conv":
            made.update(node.output)
        elif position in spreading and before_layers & set(node.output):
            made.update(_data(node), node.output)
    settled = {_behind_relu(wiring, name) for name in made}
    for position, node in enumerate(wiring.nodes):
        yield from ((position, slot) for slot, name in enumerate(node.input) if name in settled)


def _spreading(wiring: Wiring, layers: frozenset[int]) -> set[int]:
    """Nodes that have INT8 kernels and whose data all comes from Convs, through nodes of the same kind.

    So the residual stream of a transformer, which INT8 harms, stays in float: it never starts at a Conv alone.
    """
    reached: set[str] = set()
    spreading: set[int] = set()
    for position, node in enumerate(wiring.nodes):
        known = node.op_type in _JOINS | _UNARY | _SAME_VALUES and position not in wiring.heads
        if known and reached.issuperset(_data(node)):
            spreading.add(position)
        if position in spreading or (position in layers and node.op_type == "Conv"):
            reached.update(node.output)
    return spreading


def _data(node: onnx.NodeProto) -> list[str]:
    """The inputs that hold activations; the others of a node are shapes, bounds and the like."""
    return list(node.input if node.op_type in _JOINS else node.input[:1])


def _tensors_before(wiring: Wiring, layers: frozenset[int]) -> set[str]:
    """Tensors that some layer needs, at however many removes."""
    before: set[str] = set()
    for position in range(len(wiring.nodes) - 1, -1, -1):
        node = wiring.nodes[position]
        if position in layers or before & set(node.output):
            before.update(node.input)
    return before


def _behind_relu(wiring: Wiring, tensor: str) -> str:
    """The output of the Relu (or Clip from 0) that alone reads the tensor, else the tensor."""
    position = wiring.sole_consumer(tensor)
    if position is None:
        return tensor
    node = wiring.nodes[position]
    lowest = node.input[1] if node.op_type == "Clip" and len(node.input) > 1 else ""
    from_zero = lowest in wiring.constants and not wiring.array(lowest).any()
    return node.output[0] if node.op_type == "Relu" or from_zero else tensor


def quantise(model: onnx.ModelProto, table: CalibrationTable, target: Target) -> onnx.ModelProto:
    """The model with INT8 trunk layers, written as Q/DQ around them; heads and normalisation stay in float.

    Weights are symmetric INT8 per output channel, stored as INT8. Activations are symmetric INT8 (``tensorrt``) or
    asymmetric UINT8 with INT32 biases (``onnxruntime``). Inputs, outputs, metadata and opset are kept.

    Raises:
        EdgetlError: the model is quantised or FP16 already, its opset is below 13 (which brought per-channel
            Q/DQ), it has no layer to quantise, or the table lacks a tensor or holds an impossible range.
    """
    _refuse_unfit(model)
    placement = place(Wiring(model.graph), target)
    if not placement.layers:
        raise EdgetlError("the graph has no Conv, Gemm or MatMul with constant weights to quantise; keep it in FP32")
    scales = dict(_activation_scales(placement, table, target))
    return _Rewriter(model, placement, scales, biases=target == "onnxruntime").rewrite()


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
class _Scale:
    scale: np.float32
    zero_point: NDArray[Any]


def _activation_scales(placement: Placement, table: CalibrationTable, target: Target) -> Iterator[tuple[str, _Scale]]:
    ranges = table.by_name()
    for tensor, source in placement.sources.items():
        if source not in ranges:
            raise EdgetlError(f"the calibration table has no range for {source!r}; calibrate this graph again")
        yield tensor, _activation_scale(ranges[source], target)


def _activation_scale(found: TensorRange, target: Target) -> _Scale:
    if not (np.isfinite(found.amax) and found.low <= 0.0 <= found.high):
        raise EdgetlError(
            f"the calibration table gives {found.name!r} the range {found.low} to {found.high}, expected finite ends "
            "on either side of 0; calibrate this graph again"
        )
    width = found.amax / 127 if target == "tensorrt" else (found.high - found.low) / 255
    # A tensor that was always zero has no range; any scale represents it exactly.
    scale = np.float32(width) if np.float32(width) > 0.0 else np.float32(1.0)
    if target == "tensorrt":
        return _Scale(scale, np.array(0, np.int8))
    return _Scale(scale, np.array(np.clip(np.rint(-found.low / scale), 0, 255), np.uint8))


class _Rewriter:
    """Writes one quantised copy of a model. Node and tensor order follow the original, so bytes are reproducible."""

    def __init__(
        self, model: onnx.ModelProto, placement: Placement, activations: Mapping[str, _Scale], biases: bool
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
                self._quantise_weights(node, self._activations[original.input[0]].scale)
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

    def _quantise_weights(self, node: onnx.NodeProto, activation_scale: np.float32) -> None:
        weight = self._finite(node.input[1])
        axis = weight.ndim - 1 if _output_axis_is_last(node) else 0
        bias = self._finite(node.input[2]) if self._biases and len(node.input) > 2 and node.input[2] else None
        scale = _weight_scale(weight, axis, bias, activation_scale)
        along = scale.reshape([-1 if dim == axis else 1 for dim in range(weight.ndim)])
        quantised = np.clip(np.rint(weight / along), -127, 127).astype(np.int8)
        node.input[1] = self._constant_dequantised(node.input[1], quantised, scale, axis)
        if bias is not None:
            steps = np.rint(bias / (activation_scale * scale)).astype(np.int32)
            node.input[2] = self._constant_dequantised(node.input[2], steps, activation_scale * scale, 0)

    def _finite(self, name: str) -> NDArray[np.float32]:
        value = self._wiring.array(name)
        if not np.isfinite(value).all():
            raise EdgetlError(f"weight {name!r} holds NaN or infinity; train or export the model again")
        return value

    def _constant_dequantised(self, name: str, steps: NDArray[Any], scale: NDArray[np.float32], axis: int) -> str:
        stored = self._constant(f"{name}_quantized", steps)
        parameters = self._parameters(name, scale, np.zeros(scale.shape, steps.dtype))
        return self._node("DequantizeLinear", [stored, *parameters], f"{name}_dequantized", axis)

    def _parameters(self, name: str, scale: NDArray[np.float32], zero_point: NDArray[Any]) -> list[str]:
        return [self._constant(f"{name}_scale", scale), self._constant(f"{name}_zero_point", zero_point)]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        name = self._names.fresh(name)
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, axis: int | None = None) -> str:
        output = self._names.fresh(output)
        self._nodes.append(helper.make_node(op, inputs, [output], name=output, axis=axis))
        return output


def _output_axis_is_last(node: onnx.NodeProto) -> bool:
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))


def _weight_scale(
    weight: NDArray[np.float32], axis: int, bias: NDArray[np.float32] | None, activation_scale: np.float32
) -> NDArray[np.float32]:
    """One step per output channel: 127 of them reach the largest weight.

    A bias is stored in steps of ``activation_scale x`` this one; where those would not fit INT32, the step grows.
    """
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    scale = np.abs(weight).max(axis=others, initial=0.0) / np.float32(127)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (activation_scale * _BIAS_LIMIT))
    # A channel of zeros, or of weights so small that their products vanish in float32, is exact at any step.
    smallest = np.finfo(np.float32).tiny / min(activation_scale, np.float32(1))
    return np.asarray(np.where(scale > smallest, scale, 1), np.float32)
