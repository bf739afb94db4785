"""How much fused graphs share, and what that saves."""

from __future__ import annotations

from collections.abc import Collection

from edgetl.artifacts.fusion_report import GraphSize, Sharing
from edgetl.errors import EdgetlError
from edgetl.graph.cost import CostModel
from edgetl.graph.fusion.fused_graph import Fused
from edgetl.graph.model import varying_tensors


def sharing(fused: Fused) -> Sharing:
    """The sizes of the graphs, alone and fused, and of what each of them shares with the others.

    Costs stay None where they cannot be told, because fusing does not depend on them.
    """
    costs, untold = None, None
    try:
        costs = CostModel(fused.model)
    except EdgetlError as error:
        untold = str(error)
    varying = varying_tensors(fused.model.graph)
    layers = [
        owners
        for node, owners in zip(fused.model.graph.node, fused.owners, strict=True)
        if node.op_type != "Identity" and not varying.isdisjoint(node.output)
    ]

    def amount(prefixes: Collection[str]) -> GraphSize:
        count = sum(not set(owners).isdisjoint(prefixes) for owners in layers)
        if costs is None:
            return GraphSize(count)
        cost = costs.cost([name for prefix in prefixes for name in fused.outputs[prefix]])
        return GraphSize(count, cost.parameters, cost.flops, cost.relative_latency)

    prefixes = fused.tensors.keys()
    together = amount(prefixes)
    own = {prefix: amount({prefix}) for prefix in prefixes}
    shared = {prefix: _common(own[prefix], amount(prefixes - {prefix}), together) for prefix in prefixes}
    separate, fused_latency = sum(each.relative_latency or 0.0 for each in own.values()), together.relative_latency
    return Sharing(own, shared, together, separate / fused_latency if fused_latency else None, untold)


def _common(one: GraphSize, rest: GraphSize, together: GraphSize) -> GraphSize:
    """The size of what both contain, which the sum of their sizes counts twice."""
    layers = one.layers + rest.layers - together.layers
    if one.parameters is None or rest.parameters is None or together.parameters is None:
        return GraphSize(layers)
    if one.flops is None or rest.flops is None or together.flops is None:
        return GraphSize(layers)
    parameters = one.parameters + rest.parameters - together.parameters
    return GraphSize(layers, parameters, one.flops + rest.flops - together.flops)
