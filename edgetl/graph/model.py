"""Read and write ONNX models, and look up which node makes or reads a tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from edgetl.arrays import AnyArray
from edgetl.artifacts.files import read_bytes, whole_file
from edgetl.errors import EdgetlError
from edgetl.graph.external_data import weights_digest, with_external_data, without_weights

# Behind the last of these nodes a network only computes results from what it has found. Average pooling is among them
# because averages bear coarse steps well: the activation between a last Conv and its pooling is no result yet.
_NETWORK = frozenset(
    {"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool", "ReduceMean"}
)

ONE_FILE = 2**31 - 1
"""The most bytes that one ONNX file can have."""


class Wiring:
    """The nodes that make and read each tensor of a graph. Nodes are positions, because names of nodes may be empty.

    ``constants``: initializers, Constant nodes and Identities of either (torch exports equal weights so). An
    initializer that is also a graph input is none, because the caller can replace it.
    ``tail``: the nodes that no Conv, Gemm, MatMul or average pooling depends on: Softmax, or the decoding of boxes
    with its NonMaxSuppression or Loop, where exp and pixel coordinates overflow or lose half pixels in FP16.
    ``heads``: these and the last Gemm or MatMul before them. They stay in float32 in every precision, but for a last
    layer that calibration chose for INT8.
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
        tail: set[int] = set()
        for position in range(len(self.nodes) - 1, -1, -1):
            if self.nodes[position].op_type not in _NETWORK and self.readers(position) <= tail:
                tail.add(position)
        self.tail = frozenset(tail)
        self.heads = self.tail | {
            position
            for position, node in enumerate(self.nodes)
            if node.op_type in {"Gemm", "MatMul"}
            and self.readers(position) <= self.tail
            and sum(1 for name in node.input if name and name not in self.constants) == 1
        }

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes the tensor; None for constants in the graph and graph inputs."""
        position = self.producers.get(tensor)
        return None if position is None else self.nodes[position]

    def sole_consumer(self, tensor: str) -> int | None:
        """The one node that reads the tensor; None where there are several or where it is a graph output."""
        readers = self.consumers.get(tensor, [])
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def array(self, name: str) -> AnyArray:
        """The value of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def readers(self, position: int) -> set[int]:
        """Positions of the nodes that read a node's outputs."""
        return {reader for name in self.nodes[position].output for reader in self.consumers.get(name, [])}

    def results(self) -> tuple[str, ...]:
        """Names of the float tensors with which the network ends and its tail begins: logits, features, raw boxes.

        Precisions are compared here, because behind it Softmax saturates and NonMaxSuppression jumps.
        """
        found: dict[str, None] = {}
        for position, node in enumerate(self.nodes):
            if position not in self.tail and node.output[0] not in self.constants:
                read = [name for name in node.output if self.tail.intersection(self.consumers.get(name, []))]
                found.update(dict.fromkeys([*read, *(name for name in node.output if name in self.outputs)]))
        return tuple(found)


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, including those that its subgraphs capture."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from tensors_read(inner)


def varying_tensors(graph: onnx.GraphProto, also_varying: Collection[int] = ()) -> set[str]:
    """Names of the tensors that depend on an input of the graph.

    Args:
        graph: nodes in topological order.
        also_varying: positions of nodes whose outputs vary for another reason.
    """
    found = {value.name for value in real_inputs(graph)}
    for position, node in enumerate(graph.node):
        if position in also_varying or not found.isdisjoint(tensors_read(node)):
            found.update(name for name in node.output if name)
    return found


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node: the branches of If, the bodies of Loop and Scan."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def needed(nodes: Sequence[onnx.NodeProto], outputs: Collection[str], given: Collection[str] = ()) -> list[int]:
    """Positions of the nodes that the outputs need when some tensors are given, in ascending order."""
    wanted = set(outputs) - set(given)
    kept = []
    for position in range(len(nodes) - 1, -1, -1):
        if wanted.intersection(nodes[position].output):
            wanted.update(name for name in tensors_read(nodes[position]) if name not in given)
            kept.append(position)
    return kept[::-1]


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, or ``default``."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


class FreshNames:
    """Makes tensor names that a graph does not have yet."""

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
    """A checked copy of the model with other nodes and more initializers, without constants that no node reads."""
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


def typed(model: onnx.ModelProto, names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """Types and shapes of tensors, as the model records them, else inferred, else the name alone."""
    known = _recorded(model.graph)
    if not known.keys() >= set(names):
        known = _recorded(onnx.shape_inference.infer_shapes(without_weights(model)[0]).graph) | known
    return [known.get(name, onnx.ValueInfoProto(name=name)) for name in names]


def _recorded(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    # Of equal names the last counts, and inputs and outputs say more than value_info.
    constants = (helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer)
    return {value.name: value for value in (*constants, *graph.value_info, *graph.input, *graph.output)}


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of the model whose outputs are some of its float tensors."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        watched.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return watched


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard ONNX operators that the model uses."""
    return next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), 0)


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller must give: up to IR version 3 the weights are listed among the inputs too."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def image_input(model: onnx.ModelProto) -> str:
    """The name of the one input, float32 [N, 3, H, W].

    Raises:
        EdgetlError: there is not exactly one input, or it is of another type or rank.
    """
    inputs = real_inputs(model.graph)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise EdgetlError(f"the graph has {len(inputs)} inputs ({names}), expected one: images as float32 [N,3,H,W]")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT or len(kind.shape.dim) != 4:
        found = f"{onnx.TensorProto.DataType.Name(kind.elem_type)} of rank {len(kind.shape.dim)}"
        raise EdgetlError(f"input {inputs[0].name!r} of the graph is {found}, expected FLOAT [N,3,H,W]")
    return str(inputs[0].name)


def model_bytes(model: onnx.ModelProto) -> bytes:
    """The model serialized: the same model gives the same bytes.

    Raises:
        EdgetlError: the model is larger than the 2 GiB that one ONNX file can hold.
    """
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (ValueError, EncodeError) as error:
        raise EdgetlError(f"the model cannot be written as one ONNX file: {one_line(error)}") from error


def save_model(model: onnx.ModelProto, path: Path, limit: int = ONE_FILE) -> None:
    """Write a model, whole or not at all; see `whole_model`."""
    with whole_model(model, path, limit):
        pass


@contextmanager
def whole_model(model: onnx.ModelProto, path: Path, limit: int = ONE_FILE) -> Iterator[Path]:
    """A temporary file with the model, which becomes ``path`` when the block ends without an exception.

    The weights of a model over ``limit`` bytes go to one file of external data, ``PATH.DIGEST.data``. It is named
    after its content and written first: at any moment, the model at ``path`` has the weights it was saved with.

    Raises:
        EdgetlError: the files cannot be written, or the model is too large even without its weights.
    """
    with whole_file(path) as partial, ExitStack() as undo:
        old = _own_data(path)
        try:
            fits = model.ByteSize() <= limit
        except (ValueError, EncodeError):  # protobuf cannot count beyond 2 GiB
            fits = False
        data = None if fits else path.with_name(f"{path.name}.{weights_digest(model)[:8]}.data")
        if data is not None:
            if not data.exists():
                undo.callback(data.unlink, missing_ok=True)
            model = with_external_data(model, data)
        partial.write_bytes(model_bytes(model))
        yield partial
        undo.pop_all()
    # Only now, because until the file was replaced the old model needed its own data.
    for stale in old - {data}:
        with suppress(OSError):
            stale.unlink()


def _own_data(path: Path) -> set[Path]:
    """The files beside ``path`` that are named like its external data and that the model there refers to."""
    pattern = rf"{re.escape(path.name)}\.[0-9a-f]{{8}}\.data"
    named = [file for file in path.parent.iterdir() if re.fullmatch(pattern, file.name)]
    try:
        referred = _external_data(path) if named and path.is_file() else set()
    except (DecodeError, ValueError, OSError):  # it is no model
        return set()
    return {file for file in named if file.name in referred}


def _external_data(path: Path) -> set[str]:
    graph = onnx.load_model(path, load_external_data=False).graph
    return {entry.value for tensor in graph.initializer for entry in tensor.external_data if entry.key == "location"}


def stored_bytes(path: Path) -> int:
    """The size of a valid model's file and of the external data that it refers to."""
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in _external_data(path))))


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
    external = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (onnx.checker.ValidationError, OSError, ValueError, KeyError) as error:
        raise EdgetlError(f"the external data of {path} cannot be read: {one_line(error)}") from error
    for tensor in external:
        tensor.ClearField("data_location")  # the same model is the same bytes however it was stored
    try:
        # What lies in several files may be more than the checker takes from memory.
        onnx.checker.check_model(str(path) if external else model)
        for tensor in model.graph.initializer:
            numpy_helper.to_array(tensor)
    except (onnx.checker.ValidationError, TypeError, ValueError, KeyError, EncodeError) as error:
        raise EdgetlError(f"{path} is not a valid ONNX model: {one_line(error)}") from error
    return model


def one_line(error: Exception) -> str:
    """The message of a foreign exception, fit for one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
