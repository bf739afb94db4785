"""Where Q/DQ goes in a graph: decided from the graph alone, differently for each runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from edgetl.config import QdqFormat
from edgetl.graph.model import Wiring, attribute

# Their output holds values of their input, so it takes the input's range and runtimes run them on INT8 as they are.
_SAME_VALUES = frozenset(
    {"MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split"}
)
_UNARY = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "AveragePool", "GlobalAveragePool"}
)
_JOINS = frozenset({"Add", "Mul", "Concat"})


@dataclass(frozen=True)
class QdqPlacement:
    """Where Q/DQ goes in a graph.

    ``layers``: positions of the nodes whose weights become INT8. ``slots``: the (node, input) pairs that read a
    quantised copy of their tensor. ``sources``: each tensor that has such a copy, and the one whose range it takes.
    """

    layers: tuple[int, ...]
    slots: frozenset[tuple[int, int]]
    sources: dict[str, str]


def place_qdq(
    wiring: Wiring, target: QdqFormat, excluded: Collection[str] = (), last: Collection[str] = ()
) -> QdqPlacement:
    """Decide where Q/DQ goes, from the graph alone.

    ``tensorrt``: at the input of every layer, and at one input of a residual Add; nothing at outputs. That is what
    NVIDIA's placement recommendations ask for: weighted layers fuse with the activation and the addition behind
    them only while no Q/DQ lies between. One pair per tensor, shared by its readers: the tensor is then written
    once, as INT8, by the layer that makes it.

    ``onnxruntime``: at inputs and outputs of every op that has an INT8 kernel, because ONNX Runtime fuses
    DQ-op-Q as a whole and computes in float where one of them is missing. After Conv-Relu only behind the Relu,
    which the range makes redundant. What lies between the last layer and the heads stays in float: pooling
    averages the quantisation error away, and quantising again would bring it back. A Conv that results are worked
    out from (raw boxes) stays in float as a whole: its output may not be quantised, and without that it is slower.
    So does one that makes what a layer in ``excluded`` reads: what that layer lost, it lost there.

    Args:
        excluded: layers that stay in float, by the tensor they make.
        last: layers among the last ones that do not. Nothing else is placed otherwise for them.
    """
    layers = [
        position
        for position, node in enumerate(wiring.nodes)
        if position not in wiring.heads and _is_layer(wiring, node) and node.output[0] not in excluded
    ]
    bare: set[str] = set()
    if target == "onnxruntime":
        bare = {source(wiring, node.input[0]) for node in wiring.nodes if node.output[0] in excluded}
        layers = [position for position in layers if not _stays_bare(wiring, position, bare)]
    slots = {(position, 0) for position in layers}
    ends = [p for p in wiring.heads if wiring.nodes[p].output[0] in last and _is_layer(wiring, wiring.nodes[p])]
    if target == "tensorrt":
        slots |= set(_residual_slots(wiring, frozenset(layers)))
    else:
        cpu = _cpu_slots(wiring, frozenset(layers))
        slots |= {(p, slot) for p, slot in cpu if source(wiring, wiring.nodes[p].input[slot]) not in bare}
    slots |= {(position, 0) for position in ends}
    layers = sorted([*layers, *ends])
    tensors = dict.fromkeys(wiring.nodes[position].input[slot] for position, slot in sorted(slots))
    return QdqPlacement(tuple(layers), frozenset(slots), {name: source(wiring, name) for name in tensors})


def _stays_bare(wiring: Wiring, position: int, bare: set[str]) -> bool:
    """Whether the output of a Conv may not be quantised for ONNX Runtime, so that it gains nothing from INT8."""
    node = wiring.nodes[position]
    unfit = wiring.readers(position) <= wiring.tail or _behind_relu(wiring, node.output[0]) in bare
    return node.op_type == "Conv" and unfit


def first_layers(wiring: Wiring, target: QdqFormat) -> tuple[str, ...]:
    """The layers that could be INT8 and have no other one before them, by the tensor they make.

    None if without them no layer would be INT8.
    """
    placed = [wiring.nodes[position] for position in place_qdq(wiring, "tensorrt").layers]
    behind = {node.output[0] for node in placed}
    for node in wiring.nodes:
        if not behind.isdisjoint(node.input):
            behind.update(node.output)
    first = [node.output[0] for node in placed if node.input[0] not in behind]
    return tuple(first) if place_qdq(wiring, target, first).layers else ()


def last_layers(wiring: Wiring) -> tuple[tuple[str, str], ...]:
    """The last layers before results that could be INT8: the tensor each makes, and the one whose range it needs."""
    heads = (wiring.nodes[position] for position in sorted(wiring.heads))
    return tuple((node.output[0], source(wiring, node.input[0])) for node in heads if _is_layer(wiring, node))


def _is_layer(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """A Conv, Gemm or MatMul with constant weights, in the form that INT8 kernels take."""
    if node.op_type not in {"Conv", "Gemm", "MatMul"} or node.input[0] in wiring.constants:
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


def source(wiring: Wiring, tensor: str) -> str:
    """The tensor whose range a tensor has: itself, or what was before nodes that only pass values on."""
    maker = wiring.producer(tensor)
    while maker is not None and maker.op_type in _SAME_VALUES:
        tensor = maker.input[0]
        maker = wiring.producer(tensor)
    return tensor


def never_negative(wiring: Wiring, tensor: str) -> bool:
    """Whether the node that makes a tensor allows no value below 0."""
    maker = wiring.producer(tensor)
    return maker is not None and (maker.op_type in {"Relu", "Sigmoid", "HardSigmoid"} or _clips_at_zero(wiring, maker))


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
        if position not in wiring.tail:
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
    return node.output[0] if node.op_type == "Relu" or _clips_at_zero(wiring, node) else tensor


def _clips_at_zero(wiring: Wiring, node: onnx.NodeProto) -> bool:
    lowest = node.input[1] if node.op_type == "Clip" and len(node.input) > 1 else ""
    return lowest in wiring.constants and not wiring.array(lowest).any()
