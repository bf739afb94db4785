"""Which outputs need each node: the trunk is the nodes that all of them need."""

from __future__ import annotations

import onnx

from edgetl.graph.model import needed

TRUNK = "trunk"
_HEAD = "head/"
_MOST_NAMED = 3


def parts(model: onnx.ModelProto) -> dict[str, str]:
    """The part of each named node: ``trunk``, or the outputs that need it.

    Nodes of a head that edgetl wrote are known by their name too: a graph of one head has only nodes that all need.
    """
    outputs = [output.name for output in model.graph.output]
    behind = {output: set(needed(model.graph.node, [output])) for output in outputs}
    found = {}
    for position, node in enumerate(model.graph.node):
        own = [name for name in outputs if position in behind[name]]
        if node.name.startswith(_HEAD):
            found[node.name] = node.name.removeprefix(_HEAD).partition("/")[0]
        elif node.name:
            shown = ", ".join(own[:_MOST_NAMED])
            more = f"{shown} and {len(own) - _MOST_NAMED} more" if len(own) > _MOST_NAMED else shown
            found[node.name] = TRUNK if len(own) == len(outputs) else more
    return found
