"""Where Q/DQ nodes go in a graph: decided from the graph alone, for each QDQ format."""

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
    """Where Q/DQ nodes go in a graph.

    ``layers``: positions of the nodes whose weights become INT8. ``slots``: the (node, input) pairs that read a
    quantised copy of their tensor. ``sources``: each tensor with such a copy, and the tensor whose range it takes.
    """

    layers: tuple[int, ...]
    slots: frozenset[tuple[int, int]]
    sources: dict[str, str]


def place_qdq(
    wiring: Wiring, target: QdqFormat, excluded: Collection[str] = (), last: Collection[str] = ()
) -> QdqPlacement:
    """Decide where Q/DQ nodes go.

    ``tensorrt``: at the input of every layer, and at one input of a residual Add; nothing at outputs. NVIDIA's
    placement recommendations ask for this: layers fuse with the activation and the addition behind them only while
    no Q/DQ lies between. Readers of a tensor share one pair, so the layer that makes it writes it once, as INT8.

    ``onnxruntime``: at inputs and outputs of every operator that has an INT8 kernel, because ONNX Runtime fuses
    DQ-op-Q as a whole and computes in float where one of them is missing. After Conv-Relu only behind the Relu,
    which the range makes redundant. Tensors between the last layer and the heads stay in float: pooling averages the
    quantisation error away, and quantising again would bring it back. A Conv that makes results (raw boxes) stays in
    float as a whole: its output may not be quantised, and then INT8 is slower. So does a Conv that makes the input of
    a layer in ``excluded``: the loss of that layer is in its input.

    Args:
        excluded: layers that stay in float, by the tensor they make.
        last: last layers that become INT8. They change nothing else in the placement.
    """
    body = [(position, node) for position, node in enumerate(wiring.nodes) if position not in wiring.heads]
    layers = [position for position, node in body if _is_layer(wiring, node) and node.output[0] not in excluded]
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
    # After all else is placed, so that a last layer in INT8 draws no other node into INT8.
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

    It is empty if without them no layer would be INT8.
    """
    placed = [wiring.nodes[position] for position in place_qdq(wiring, "tensorrt").layers]
    behind = {node.output[0] for node in placed}
    for node in wiring.nodes:
        if not behind.isdisjoint(node.input):
            behind.update(node.output)
    first = [node.output[0] for node in placed if node.input[0] not in behind]
    return tuple(first) if place_qdq(wiring, target, first).layers else ()


def last_layers(wiring: Wiring) -> tuple[tuple[str, str], ...]:
    """The last layers that could be INT8: the tensor that each makes, and the one whose range it needs."""
    heads = (wiring.nodes[position] for position in sorted(wiring.heads))
    return tuple((node.output[0], source(wiring, node.input[0])) for node in heads if _is_layer(wiring, node))


def _is_layer(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a node is a Conv, Gemm or MatMul with constant weights that INT8 kernels take."""
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
    """The tensor whose range a tensor has: itself, or the input of the nodes before it that only pass values on."""
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
    """The shortcut input of every Add behind a Conv, which fuses with the Add because its own branch has no Q/DQ."""
    read_by_layers = {wiring.nodes[position].input[0] for position in layers}

    # Best a tensor that is quantised for a layer anyway; then one that no layer makes; then the older one.
    def preference(tensor: str) -> tuple[bool, bool, int]:
        maker = wiring.producers.get(tensor, -1)
        origin = wiring.producers.get(wiring.nodes[maker].input[0], -1) if maker in layers else maker
        return tensor not in read_by_layers, maker in layers, origin

    for position, node in enumerate(wiring.nodes):
        if node.op_type != "Add" or position in wiring.heads or wiring.constants.keys() & set(node.input):
            continue
        if any(wiring.producers.get(name) in layers and wiring.sole_consumer(name) == position for name in node.input):
            yield position, min((0, 1), key=lambda slot: preference(node.input[slot]))


def _cpu_slots(wiring: Wiring, layers: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The inputs that read a tensor which ONNX Runtime makes or reads with an INT8 kernel."""
    spreading = _spreading(wiring, layers)
    before_layers: set[str] = set()
    for position in range(len(wiring.nodes) - 1, -1, -1):
        node = wiring.nodes[position]
        if position in layers or before_layers & set(node.output):
            before_layers.update(node.input)
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
    """Positions of nodes that have INT8 kernels and whose data comes from Convs alone, through nodes of the same kind.

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
    """The inputs of a node that hold activations; others are shapes, bounds and the like."""
    return list(node.input if node.op_type in _JOINS else node.input[:1])


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
