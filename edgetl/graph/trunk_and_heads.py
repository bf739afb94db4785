"""Which outputs need each node: the trunk is the nodes that all of them need."""

from __future__ import annotations

import onnx

TRUNK = "trunk"
_HEAD = "head/"
_MOST_NAMED = 3


def parts(model: onnx.ModelProto) -> dict[str, str]:
    """The part of each named node: ``trunk``, or the outputs that need it.

    Nodes of a head that edgetl wrote are known by their name too: a graph of one head has only nodes that all need.
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
    found = {}
    for node in model.graph.node:
        own = [name for name in outputs if name in needed.get(id(node), ())]
        if node.name.startswith(_HEAD):
            found[node.name] = node.name.removeprefix(_HEAD).partition("/")[0]
        elif node.name:
            shown = ", ".join(own[:_MOST_NAMED])
            more = f"{shown} and {len(own) - _MOST_NAMED} more" if len(own) > _MOST_NAMED else shown
            found[node.name] = TRUNK if len(own) == len(outputs) else more
    return found


def _outer_names(node: onnx.NodeProto) -> list[str]:
    """Names that the graphs inside a node (of If and Loop) may read from outside of it."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    names = [name for graph in graphs for inner in graph.node for name in (*inner.input, *_outer_names(inner))]
    return names + [output.name for graph in graphs for output in graph.output]
