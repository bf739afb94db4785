"""Times of an engine's layers, and the ONNX nodes that the layers came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

import onnx

# How TensorRT joins the names of the nodes that a layer was made of, over all versions; \x1e is its record separator.
_BETWEEN_NODES = re.compile(
    r" \+ | \|\| |\.\.\.|[(),{}]|\[ONNX Layer: |\]|\x1e|ForeignNode\[| to | for Input Tensor \d+"
)
_MULTIPLY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SUFFIX = re.compile(r"_nchwc$|_token_\d+$")  # what ONNX Runtime's optimiser appends to the name of a tensor
_MOST_STEPS = 8  # from the tensor that names a fused layer up to its operator: activations and Q/DQ nodes take fewer


@dataclass(frozen=True)
class TimedLayer:
    """A layer and its time: ``ms`` is the median over the runs. ``operator`` is empty where the runtime names none."""

    name: str
    operator: str
    ms: float


@dataclass(frozen=True)
class LayerTimes:
    """Layers in their order, and the median of the whole inference while the profiler was on, in milliseconds."""

    source: str
    runs: int
    layers: tuple[TimedLayer, ...]
    whole_ms: float


def from_runs(source: str, runs: Iterable[Mapping[tuple[str, str], float]], whole_ms: Iterable[float]) -> LayerTimes:
    """Take medians over runs, each of which maps (name, operator) to milliseconds."""
    collected: dict[tuple[str, str], list[float]] = {}
    count = 0
    for run in runs:
        count += 1
        for layer, ms in run.items():
            collected.setdefault(layer, []).append(ms)
    layers = tuple(TimedLayer(name, operator, median(ms)) for (name, operator), ms in collected.items())
    return LayerTimes(source, count, layers, median(whole_ms))


def origins(graph: onnx.ModelProto) -> Callable[[TimedLayer], str | None]:
    """A function from a layer to the graph's node that it came from; to None where the runtime made the layer itself.

    Of several fused nodes it takes the one that multiplies. ONNX Runtime keeps a node's name, or names a fused layer
    after the tensor that it makes (``relu_out_nchwc``); TensorRT joins the names of the fused nodes (``a + b``).
    """
    nodes = {node.name: node for node in graph.graph.node if node.name}
    makers = {name: node for node in graph.graph.node for name in node.output}

    def find(layer: TimedLayer) -> str | None:
        for name in (layer.name, _SUFFIX.sub("", layer.name)):
            if name in nodes:
                return name
            if name in makers:
                return _multiplying(makers[name], makers, layer.operator).name or None
        named = [nodes[part] for part in _BETWEEN_NODES.split(layer.name) if part in nodes]
        multiplying = next((node for node in named if node.op_type in _MULTIPLY), None)
        return (multiplying or named[0]).name if named else None

    return find


def _multiplying(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], operator: str) -> onnx.NodeProto:
    """The node with the layer's operator a few steps above ``node``, which named the layer; else ``node``."""
    wanted, found = operator.removeprefix("Fused").removeprefix("QLinear"), node
    for _ in range(_MOST_STEPS):
        if found.op_type == wanted:
            return found
        before = next((makers[name] for name in found.input if name in makers), None)
        if before is None:
            return node
        found = before
    return node
