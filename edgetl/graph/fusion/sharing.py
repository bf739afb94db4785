"""How much of several graphs became one, and what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Collection

from edgetl.artifacts.fusion_report import GraphSize, Sharing
from edgetl.errors import EdgetlError
from edgetl.graph.cost import CostModel
from edgetl.graph.fusion.fused_graph import Fused
from edgetl.graph.model import varying_tensors


def sharing(fused: Fused) -> Sharing:
    """Count what graphs have in common. That costs cannot be told is no error: fusing does not depend on it."""
    costs, untold = None, None
    try:
        costs = CostModel(fused.model)
    except EdgetlError as error:
        untold = str(error)
    prefixes = fused.tensors.keys()
    amount = _amounts(fused, costs)
    together = amount(prefixes)
    own = {prefix: amount({prefix}) for prefix in prefixes}
    shared = {prefix: _common(own[prefix], amount(prefixes - {prefix}), together) for prefix in prefixes}
    separate = sum(each.relative_latency or 0.0 for each in own.values())
    return Sharing(
        own, shared, together, separate / together.relative_latency if together.relative_latency else None, untold
    )


def _amounts(fused: Fused, costs: CostModel | None) -> Callable[[Collection[str]], GraphSize]:
    """What some of the graphs come to as one."""
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

    return amount


def _common(one: GraphSize, rest: GraphSize, together: GraphSize) -> GraphSize:
    """What is in both: their sum counts it twice."""

    def common(kind: str) -> int | None:
        counts = [getattr(amount, kind) for amount in (one, rest, together)]
        return None if None in counts else counts[0] + counts[1] - counts[2]

    return GraphSize(one.layers + rest.layers - together.layers, common("parameters"), common("flops"))
