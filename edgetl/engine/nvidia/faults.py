"""Turn TensorRT's errors about a graph into one line: which node, which operator, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from edgetl.engine.nvidia.generations import has

_LONGEST = 300  # characters of TensorRT's own text: some errors list every layer

_NO_KERNEL = r"no runners that implement|could not find any implementation|no implementation"
# The first pattern that is found counts: causes stand before their consequences, such as memory before kernels.
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
    (r"zero[- ]?point|asymmetric", "TensorRT takes symmetric INT8 alone: prepare the graph with --target tensorrt"),
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
    """The parser's first error, the ONNX node that it is about, and what to do."""
    if not parser.num_errors:
        return explain_builder(errors, model)
    fault = parser.get_error(0)
    number, node = fault.node(), None
    if has(trt, "node in parser errors") and fault.node_operator():
        node = NodeReference(fault.node_name() or str(number), fault.node_operator())
    elif 0 <= number < len(model.graph.node):
        found = model.graph.node[number]
        node = NodeReference(found.name or str(number), found.op_type)
    # With the code: the description may be as short as "false".
    text = f"{fault.code().name.replace('_', ' ').lower()}: {' '.join(fault.desc().split())}"
    return _line(node, text, None)


def explain_builder(errors: Sequence[str], model: onnx.ModelProto) -> str:
    """The builder's first error that names an ONNX node, else its first, with the node and what to do."""
    if not errors:
        return "it gave no reason"
    # The parser names a layer after its node or, where that has no name, after the node's output.
    nodes = {}
    for number, found in enumerate(model.graph.node):
        for name in filter(None, (found.name, *(f"node_of_{output}" for output in found.output))):
            nodes[name] = NodeReference(found.name or str(number), found.op_type)
    for text in errors:
        node = _named_in(text, nodes)
        if node is not None:
            return _line(node, text, errors)
    return _line(None, errors[0], errors)


def _line(node: NodeReference | None, text: str, errors: Sequence[str] | None) -> str:
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    everything = (" ".join(errors) if errors else text).lower()
    advice = next((advice for pattern, advice in _ADVICE if re.search(pattern, everything)), None)
    if node is not None and node.operator == "NonMaxSuppression" and re.search(_NO_KERNEL, everything):
        advice = _NMS_ADVICE
    return f"{f'{node}: ' if node else ''}{shown}{f'; {advice}' if advice else ''}"


def _named_in(text: str, nodes: Mapping[str, NodeReference]) -> NodeReference | None:
    """The node whose layer a message names, if any."""
    for word in re.findall(r"[^\s\[\]{}(),;:'\"]+", text.replace("...", " ")):
        bare = word.strip(".")
        # A node that became several layers has _N or _clone_N behind its name.
        for name in (bare, re.sub(r"_\d+$", "", bare), bare.partition("_clone_")[0]):
            if name in nodes:
                return nodes[name]
    return None
