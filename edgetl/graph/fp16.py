"""FP16 stated by a graph's types, so that every runtime computes what the file says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.graph.model import FreshNames, Wiring, one_line, opset, tensors_read, with_nodes

# TensorRT warns that these overflow in FP16, and ONNX Runtime's FP16 kernel corrupts its second run (its issue 27768).
_FULL_PRECISION = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization"})
_HALF = "tensor(float16)"
LARGEST = float(np.finfo(np.float16).max)
"""The largest FP16 number: 65504."""

# Runtimes compute these in the kernel of the layer before them, so their output would go through two Casts for nothing.
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish"})


def to_fp16(model: onnx.ModelProto, kept: Collection[str] = ()) -> onnx.ModelProto:
    """The model with its trunk in FP16: weights and activations are float16, inputs and outputs stay float32.

    Heads stay in float32 behind a Cast: they cost next to nothing (features x classes), and a probability near 1 has
    only three digits in float16. An operator whose ONNX schema has no float16 stays in float32 between Casts, as does
    one with a subgraph. Names of inputs and outputs, metadata and opset are kept. ONNX Runtime's own converter is not
    used because it clips weights that do not fit.

    Args:
        kept: nodes that stay in float32, by their first output; see `edgetl.graph.overflow`.

    Raises:
        EdgetlError: the model is FP16 or quantised already, has nothing to convert, or a weight does not fit
            float16 (its magnitude is above 65504).
    """
    found = next((node.op_type for node in model.graph.node if node.op_type.endswith("QuantizeLinear")), "")
    if found or any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer):
        precision = f"quantised already (it has {found})" if found else "FP16 already"
        raise EdgetlError(f"the graph is {precision}; give the FP32 graph it was made from")
    try:
        return _Converter(model, lambda output: output not in kept).convert()
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EdgetlError(f"the graph cannot be written in FP16: {one_line(error)}") from error


def layers_to_fp16(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """The graph, which may be INT8 elsewhere, with some layers and the activations behind them in FP16.

    Args:
        layers: by the tensor they make.
    """
    chosen, wiring = set(layers), Wiring(model.graph)
    for name in layers:
        while (reader := wiring.sole_consumer(name)) is not None and wiring.nodes[reader].op_type in _ACTIVATIONS:
            name = wiring.nodes[reader].output[0]
            chosen.add(name)
    return _Converter(model, chosen.__contains__).convert()


class _Converter:
    """Converts one model, where a tensor's own name stays its float32 value and a new name is its float16 value.

    A Cast makes either from the other where it is read, so inputs, outputs, heads and subgraphs find their tensors
    under the names they know.
    """

    def __init__(self, model: onnx.ModelProto, chosen: Callable[[str], bool]) -> None:
        self._model = model
        self._chosen = chosen
        self._wiring = Wiring(model.graph)
        self._names = FreshNames(model.graph)
        self._floats = float_tensors(model)
        self._halves: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []

    def convert(self) -> onnx.ModelProto:
        in_half = [self._half_slots(position, node) for position, node in enumerate(self._wiring.nodes)]
        if not any(outputs for _, outputs in in_half):
            raise EdgetlError("the graph has nothing that FP16 could speed up; keep it in FP32")
        read = set(self._wiring.outputs)
        for node, (slots, _) in zip(self._wiring.nodes, in_half, strict=True):
            half = {node.input[slot] for slot in slots}
            read.update(name for name in tensors_read(node) if name not in half)
        for original, (inputs, outputs) in zip(self._wiring.nodes, in_half, strict=True):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            for slot in inputs:
                node.input[slot] = self._half(original.input[slot])
            for slot in outputs:
                node.output[slot] = self._halves[original.output[slot]] = self._names.fresh(f"{node.output[slot]}_half")
            self._nodes.append(node)
            for slot in outputs:
                if original.output[slot] in read:
                    self._cast(node.output[slot], original.output[slot], TensorProto.FLOAT)
        converted = with_nodes(self._model, self._nodes, self._initializers)
        onnx.shape_inference.infer_shapes(converted, check_type=True, strict_mode=True)
        return converted

    def _half_slots(self, position: int, node: onnx.NodeProto) -> tuple[list[int], list[int]]:
        """The input and output slots that become float16: those whose type may be float16 by the operator's schema."""
        # A subgraph reads outer tensors by name, and would find them in another type.
        captures = len(list(tensors_read(node))) > sum(1 for name in node.input if name)
        constant = node.output[0] in self._wiring.constants
        float32 = position in self._wiring.heads or not self._chosen(node.output[0]) or node.op_type in _FULL_PRECISION
        if float32 or captures or constant:
            return [], []
        try:
            schema = onnx.defs.get_schema(node.op_type, opset(self._model), node.domain)
        except onnx.defs.SchemaError:
            return [], []
        flexible = {kind.type_param_str for kind in schema.type_constraints if _HALF in kind.allowed_type_strs}
        inputs = dict(self._typed_slots(schema.inputs, node.input, flexible))
        return list(inputs), list(dict(self._typed_slots(schema.outputs, node.output, set(inputs.values()))))

    def _typed_slots(
        self, formals: Sequence[onnx.defs.OpSchema.FormalParameter], names: Sequence[str], kinds: set[str]
    ) -> Iterator[tuple[int, str]]:
        for slot, name in enumerate(names):
            kind = formals[min(slot, len(formals) - 1)].type_str  # the last one of a schema may be variadic
            if kind in kinds and name in self._floats:
                yield slot, kind

    def _half(self, tensor: str) -> str:
        """The name of a tensor's float16 value, which is made where it is first asked for."""
        constant = self._wiring.constants.get(tensor)
        # An Identity of a constant has that constant's name, so it is stored once.
        stored = tensor if constant is None else constant.name or tensor
        if stored not in self._halves:
            name = self._halves[stored] = self._names.fresh(f"{stored}_half")
            if constant is None:
                self._cast(stored, name, TensorProto.FLOAT16)
            else:
                value = numpy_helper.to_array(constant)
                largest = float(np.abs(value, where=np.isfinite(value), out=np.zeros_like(value)).max(initial=0.0))
                if largest > LARGEST:
                    raise EdgetlError(
                        f"weight {stored!r} holds {largest:g}, the largest FP16 number is {LARGEST:g}; keep the graph "
                        "in FP32"
                    )
                self._initializers.append(numpy_helper.from_array(value.astype(np.float16), name))
        return self._halves[stored]

    def _cast(self, source: str, result: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [result], name=f"cast_{result}", to=kind))


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of the tensors that are float32, constants among them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = Wiring(graph).constants
    return found | {name for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT}
