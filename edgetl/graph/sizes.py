"""The type and size of every tensor of a graph, without reading a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgetl.arrays import AnyArray
from edgetl.errors import EdgetlError
from edgetl.graph.model import one_line, opset, tensors_read

SHAPES = frozenset({"Shape", "Size"})
# Most types say their width in their name: FLOAT16, UINT4, FLOAT8E4M3FN.
_BITS: dict[int, int] = {TensorProto.BOOL: 8, TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64} | {
    value: int(digits[0]) for name, value in TensorProto.DataType.items() if (digits := re.search(r"\d+", name))
}
_LARGEST_SHAPE = 1024  # elements; a larger constant is no shape that some node reads


@dataclass(frozen=True)
class Tensor:
    shape: tuple[int, ...]
    data_type: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bits(self) -> int:
        return _BITS[self.data_type]

    @property
    def bytes(self) -> int:
        return -(-self.elements * self.bits // 8)


class Tensors:
    """The type and size of every tensor of a graph for one image.

    It goes node by node, because ONNX's inference over a whole graph copies its weights, and cannot follow the
    arithmetic that makes shapes for a batch of any size (Shape, ConstantOfShape, Where, Expand). Such small constants
    are computed here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._opset = helper.make_opsetid("", opset(model))
        self._declared = {value.name: value.type for value in (*model.graph.value_info, *model.graph.output)}
        self._types = {value.name: _for_one_image(value.type) for value in model.graph.input}
        self._functions = {(function.domain, function.name) for function in model.functions}
        self._values: dict[str, TensorProto] = {}
        for tensor in model.graph.initializer:
            self._add_constant(tensor.name, tensor)
        for node in model.graph.node:
            self._add(node)

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._find(name)
        if tensor is None:
            raise EdgetlError(
                f"the graph does not tell the size of its tensor {name!r}; "
                "export it for one image size, or simplify it with onnxsim"
            )
        return tensor

    def _find(self, name: str) -> Tensor | None:
        kind = self._types.get(name, onnx.TypeProto()).tensor_type
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        known = kind.HasField("shape") and min(shape, default=0) >= 0 and kind.elem_type in _BITS
        return Tensor(shape, kind.elem_type) if known else None

    def _add_constant(self, name: str, tensor: TensorProto) -> None:
        self._types[name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        if math.prod(tensor.dims) <= _LARGEST_SHAPE and tensor.data_location != TensorProto.EXTERNAL:
            self._values[name] = tensor

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            self._add_constant(node.output[0], node.attribute[0].t)
            return
        values = {name: self._values[name] for name in node.input if name in self._values}
        self._types.update(self._infer(node, values))
        source = self._find(node.input[0]) if node.op_type in SHAPES else None
        if source is not None:
            # Only its shape is read, and a broadcast scalar has that without the memory.
            self._fold(node, {node.input[0]: np.broadcast_to(np.float32(0), source.shape)})
        elif all(name in values for name in tensors_read(node)):
            self._fold(node, values)

    def _infer(self, node: onnx.NodeProto, values: Mapping[str, TensorProto]) -> dict[str, onnx.TypeProto]:
        types = {name: self._types[name] for name in tensors_read(node) if name in self._types}
        types[""] = onnx.TypeProto()  # an input that is left out: onnx 1.16 looks it up too
        if not types.keys() >= set(node.input):
            return {}
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset.version, node.domain)
            return onnx.shape_inference.infer_node_outputs(
                schema, node, types, dict(values), opset_imports=[self._opset]
            )
        except onnx.defs.SchemaError as error:
            if (node.domain, node.op_type) in self._functions:
                raise EdgetlError(
                    f"the graph calls its own function {node.op_type!r}, whose cost cannot be told from outside; "
                    "inline it with onnx.inliner.inline_local_functions"
                ) from error
            return {name: _for_one_image(self._declared[name]) for name in node.output if name in self._declared}
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            raise EdgetlError(f"{node.op_type} {node.name!r} does not fit its inputs: {one_line(error)}") from error

    def _fold(self, node: onnx.NodeProto, known: Mapping[str, TensorProto | AnyArray]) -> None:
        outputs = [name for name in node.output if name]
        small = all(size and size.elements <= _LARGEST_SHAPE for size in map(self._find, outputs))
        if not small or any(item.HasField("g") for item in node.attribute):  # the body of a Loop may run for ever
            return
        inputs = [onnx.ValueInfoProto(name=name) for name in known]
        graph = helper.make_graph([node], "constant", inputs, [onnx.ValueInfoProto(name=name) for name in outputs])
        try:
            feeds = {n: numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for n, v in known.items()}
            with np.errstate(all="ignore"):
                made = ReferenceEvaluator(graph, opsets={"": self._opset.version}).run(None, feeds)
        except Exception:  # no common base; where the value matters, some size stays unknown, and that is refused
            return
        for name, value in zip(outputs, made, strict=True):
            self._add_constant(name, numpy_helper.from_array(np.asarray(value), name))


def _for_one_image(declared: onnx.TypeProto) -> onnx.TypeProto:
    kind = onnx.TypeProto()
    kind.CopyFrom(declared)
    batch = kind.tensor_type.shape.dim[:1]
    if batch and batch[0].dim_value <= 0:
        batch[0].dim_value = 1
    return kind
