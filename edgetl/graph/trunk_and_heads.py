"""Which outputs need a node: the trunk is what all of them need."""

from __future__ import annotations

import onnx

TRUNK = "trunk"
_HEAD = "head/"
_MOST_NAMED = 3


def parts(model: onnx.ModelProto) -> dict[str, str]:
    """For each named node ``trunk``, or the outputs that need it.

    A head that edgetl put on a trunk is known by its name too, so that one of a single head is told from its trunk.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    needed: dict[int, set[str]] = {}
    outputs = [output.name for output in model.graph.output]
    for output in outputs:
        waiting, seen = [output], set()
        while waiting:
            node = makers.get(waiting.pop())
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            needed.setdefault(id(node), set()).add(output)
            waiting += [*node.input, *_outer_names(node)]
    return {
        node.name: _part(node.name, [name for name in outputs if name in needed.get(id(node), ())], len(outputs))
        for node in model.graph.node
        if node.name
    }


def _part(node: str, outputs: list[str], of: int) -> str:
    if node.startswith(_HEAD):
        return node.removeprefix(_HEAD).partition("/")[0]
    if len(outputs) == of:
        return TRUNK
    shown = ", ".join(outputs[:_MOST_NAMED])
    return shown if len(outputs) <= _MOST_NAMED else f"{shown} and {len(outputs) - _MOST_NAMED} more"


def _outer_names(node: onnx.NodeProto) -> list[str]:
    """What the graphs inside a node (of If and Loop) may take from outside of it."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    names = [name for graph in graphs for inner in graph.node for name in (*inner.input, *_outer_names(inner))]
    return names + [output.name for graph in graphs for output in graph.output]
