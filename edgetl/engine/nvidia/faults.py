"""What TensorRT says when it refuses a graph, turned into one line: which node, which operator, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from edgetl.engine.nvidia.generations import has

_LONGEST = 300

_NO_KERNEL = r"no runners that implement|could not find any implementation|no implementation"
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"out ?of ?memory|memory allocation|insufficient memory|cudaerror 2\b|failure: 2\b|requested amount of gpu",
        "the device ran out of memory: close other programs, lower --workspace-mb or --batches, or add swap",
    ),
    (
        r"driver version is insufficient|no cuda-capable device|cudaerror (35|100)\b",
        "the NVIDIA driver is missing or older than this TensorRT needs; see edgetl doctor",
    ),
    (
        r"\bdla\b.*(not supported|unsupported|cannot|fail)|(not supported|cannot run|unsupported) on (the )?dla",
        "the DLA cannot run it: let the GPU do that with --gpu-fallback",
    ),
    (
        r"must have the same type|same (data)?type|strongly typed|type mismatch",
        "the graph mixes types: give the FP32 graph to edgetl prepare, which sets them consistently",
    ),
    (
        r"zero[- ]?point|asymmetric",
        "TensorRT takes symmetric INT8 alone: prepare the graph with --target tensorrt",
    ),
    (
        r"opset|no importer|unsupported node|unsupported operator|plugin",
        "this TensorRT does not have the operator: export the model without it, or use --runtime onnxruntime",
    ),
    (
        _NO_KERNEL,
        "this TensorRT has no kernel for it: raise --workspace-mb, try another precision, or use --runtime onnxruntime",
    ),
)
_NMS_ADVICE = (
    "this TensorRT reads NonMaxSuppression but has no kernel for it: export the detector with --nms loop, which "
    "computes the same from operators that it has"
)


@dataclass(frozen=True)
class NodeReference:
    """A node of the ONNX graph, by name or, where it has none, by number."""

    name: str
    operator: str

    def __str__(self) -> str:
        return f"node {self.name} ({self.operator})"


def explain_parser(parser: Any, trt: Any, model: onnx.ModelProto, errors: Sequence[str]) -> str:
    """The parser's first fault. Its own description may be as short as ``false``."""
    if not parser.num_errors:
        return explain_builder(errors, model)
    fault = parser.get_error(0)
    node = _parser_node(fault, trt, model)
    text = f"{fault.code().name.replace('_', ' ').lower()}: {' '.join(fault.desc().split())}"
    return _line(node, text, None)


def _parser_node(fault: Any, trt: Any, model: onnx.ModelProto) -> NodeReference | None:
    number = fault.node()
    if has(trt, "node in parser errors") and fault.node_operator():
        return NodeReference(fault.node_name() or str(number), fault.node_operator())
    if 0 <= number < len(model.graph.node):
        found = model.graph.node[number]
        return NodeReference(found.name or str(number), found.op_type)
    return None


def explain_builder(errors: Sequence[str], model: onnx.ModelProto) -> str:
    """The builder's first error, the ONNX node that it speaks of, and what to do."""
    if not errors:
        return "it gave no reason"
    nodes = _by_layer_name(model)
    for text in errors:
        node = _named_in(text, nodes)
        if node is not None:
            return _line(node, text, errors)
    return _line(None, errors[0], errors)


def _line(node: NodeReference | None, text: str, errors: Sequence[str] | None) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    advice = _advice(node, " ".join(errors) if errors else text)
    return f"{f'{node}: ' if node else ''}{shown}{f'; {advice}' if advice else ''}"


def _advice(node: NodeReference | None, text: str) -> str | None:
    said = text.lower()
    if node is not None and node.operator == "NonMaxSuppression" and re.search(_NO_KERNEL, said):
        return _NMS_ADVICE
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, said)), None)


def _by_layer_name(model: onnx.ModelProto) -> Mapping[str, NodeReference]:
    """Nodes under the names that the parser gives their layers: the node's own, else one made from its output."""
    named = {}
    for number, node in enumerate(model.graph.node):
        found = NodeReference(node.name or str(number), node.op_type)
        for name in filter(None, (node.name, *(f"node_of_{output}" for output in node.output))):
            named[name] = found
    return named


def _named_in(text: str, nodes: Mapping[str, NodeReference]) -> NodeReference | None:
    """The node whose layer is named in a message. A node that became several layers has ``_N`` behind its name."""
    for word in re.findall(r"[^\s\[\]{}(),;:'\"]+", text.replace("...", " ")):
        bare = word.strip(".")
        for name in (bare, re.sub(r"_\d+$", "", bare), bare.partition("_clone_")[0]):
            if name in nodes:
                return nodes[name]
    return None
