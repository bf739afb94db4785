"""Read and write ONNX files, and see how a graph is wired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.artifacts.files import read_bytes, write_bytes
from edgetl.errors import EdgetlError

# After a head's Gemm only these lead to an output; arithmetic counts where its other operand is a constant.
_TAIL = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Identity", "Flatten", "Reshape", "Squeeze", "Concat"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})


class Wiring:
    """Who makes and who reads each tensor of a graph.

    Nodes are known by their position, because names of nodes may be empty. ``constants`` holds initializers,
    Constant nodes and Identities of either (torch exports equal weights so); an initializer that is also a graph
    input can be replaced by the caller, so it is none.
    ``heads`` are the nodes from which every way leads to a graph output through a head's ops alone: the last
    Gemm (or MatMul), a constant temperature or bias, Softmax or Sigmoid. They stay in float in every precision.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.outputs = frozenset(output.name for output in graph.output)
        inputs = {value.name for value in graph.input}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
        self.producers: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        for position, node in enumerate(self.nodes):
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]
            self.producers.update((name, position) for name in node.output if name)
            for name in dict.fromkeys(tensors_read(node)):
                self.consumers.setdefault(name, []).append(position)
        self.heads = self._find_heads()

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes the tensor; None for constants in the graph and graph inputs."""
        position = self.producers.get(tensor)
        return None if position is None else self.nodes[position]

    def sole_consumer(self, tensor: str) -> int | None:
        """The one node that reads the tensor; None where there are several or where it is a graph output."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def array(self, name: str) -> NDArray[Any]:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def _find_heads(self) -> frozenset[int]:
        tail: set[int] = set()
        heads: set[int] = set()
        for position in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[position]
            readers = {reader for name in node.output for reader in self.consumers.get(name, [])}
            if not readers <= tail or not (readers or self.outputs & set(node.output)):
                continue
            varying = [name for name in node.input if name and name not in self.constants]
            if node.op_type in _TAIL or (node.op_type in _ARITHMETIC and len(varying) == 1):
                tail.add(position)
            elif node.op_type in {"Gemm", "MatMul"} and len(varying) == 1:
                heads.add(position)
        return frozenset(tail | heads)


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors a node reads, those its subgraphs capture included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from tensors_read(inner)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or ``default``."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


class FreshNames:
    """Hands out tensor names that a graph does not have yet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        values = (*graph.input, *graph.output, *graph.initializer)
        self._taken = {value.name for value in values} | {name for node in graph.node for name in node.output}

    def fresh(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def with_nodes(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy of the model that computes with other nodes and more initializers; constants nobody reads are left out."""
    read = {value.name for value in (*model.graph.input, *model.graph.output)}
    kept = []
    for node in reversed(nodes):
        if node.op_type not in {"Constant", "Identity"} or node.output[0] in read:
            read.update(tensors_read(node))
            kept.append(node)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend(reversed(kept))
    made = {name for node in kept for name in node.output}
    copy.graph.value_info.extend(value for value in model.graph.value_info if value.name in made)
    copy.graph.initializer.extend(tensor for tensor in (*model.graph.initializer, *initializers) if tensor.name in read)
    onnx.checker.check_model(copy)
    return copy


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard ONNX operators that the model uses."""
    return next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)


def image_input(model: onnx.ModelProto) -> str:
    """The name of the one input, float32 [N, 3, H, W].

    Raises:
        EdgetlError: there is not exactly one input, or it is of another type or rank.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise EdgetlError(f"the graph has {len(inputs)} inputs ({names}), expected one: images as float32 [N,3,H,W]")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        found = f"{onnx.TensorProto.DataType.Name(kind.elem_type)} of rank {len(kind.shape.dim)}"
        raise EdgetlError(f"input {inputs[0].name!r} of the graph is {found}, expected FLOAT [N,3,H,W]")
    return str(inputs[0].name)


def model_bytes(model: onnx.ModelProto) -> bytes:
    """The model as it is written to disk: the same model gives the same bytes.

    Raises:
        EdgetlError: the model is larger than the 2 GiB that one ONNX file can hold.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (ValueError, EncodeError) as error:
        raise EdgetlError(f"the model cannot be written as one ONNX file: {one_line(error)}") from error


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model as one file, whole or not at all.

    Raises:
        EdgetlError: the file cannot be written, or the model is larger than 2 GiB.
    """
    write_bytes(path, model_bytes(model))


def load_model(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file, external data included.

    Raises:
        EdgetlError: the file is missing, empty, truncated, no ONNX, fails ONNX's checker, or its external data
            is missing or lies outside its folder.
    """
    content = read_bytes(path)
    if not content:
        raise EdgetlError(f"{path} is empty, expected an ONNX model")
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        raise EdgetlError(f"{path} is not an ONNX model or is truncated: {one_line(error)}") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, OSError, ValueError, KeyError) as error:
        raise EdgetlError(f"the external data of {path} cannot be read: {one_line(error)}") from error
    try:
        onnx.checker.check_model(model)
        for tensor in model.graph.initializer:
            numpy_helper.to_array(tensor)
    except (onnx.checker.ValidationError, TypeError, ValueError) as error:
        raise EdgetlError(f"{path} is not a valid ONNX model: {one_line(error)}") from error
    return model


def one_line(error: Exception) -> str:
    """The message of a foreign exception, fit for one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
