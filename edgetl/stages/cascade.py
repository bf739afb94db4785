"""The deployment with a gate: how sure its first level must be before a group's second level runs, and its graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from edgetl.arrays import BoolArray
from edgetl.artifacts.bundle import IMAGES, TOP, Head
from edgetl.artifacts.deployment import Deployment, Gate, GateFiring, GraphSpec
from edgetl.config import COMBINED
from edgetl.graph.cost import CostModel
from edgetl.graph.extract import frontier
from edgetl.stages.serving import AnswerT, Service


def choose_gate(
    services: Mapping[float, Service[AnswerT]],
    first: AnswerT,
    second: Mapping[str, AnswerT],
    some: Callable[[AnswerT, BoolArray], AnswerT],
    score: Callable[[AnswerT], float],
) -> Gate:
    """The gate with the highest score on validation; of equals the highest threshold, where the least runs.

    Args:
        services: one for each threshold to try.
        first: the first level's answer to all validation images.
        second: the answer of each group's head to all of them.
        some: the part of an answer that is for some of the images.
        score: the accuracy of an answer.
    """

    def scored(threshold: float) -> tuple[float, float]:
        answer = services[threshold].in_turn(first, tuple(second), lambda name, rows: some(second[name], rows))
        return score(answer), threshold

    threshold = max(services, key=scored)
    groups = tuple(services[threshold].roles[name] for name in second)
    fired = np.stack([services[threshold].fires(group, first) for group in groups], axis=1)
    # Sets of groups that fire together, the most frequent first.
    sets = Counter(tuple(group for group, on in zip(groups, row, strict=True) if on) for row in fired.tolist())
    firings = (GateFiring(groups=names, fraction=count / len(fired)) for names, count in sets.most_common())
    return Gate(threshold=threshold, firings=tuple(firings))


def gated_deployment(
    kind: str,
    network: onnx.ModelProto,
    costs: CostModel,
    first: Sequence[str],
    second: Sequence[tuple[Head, Sequence[str]]],
    gate: Gate,
    also_read: Sequence[str] = (),
    runtime_specific: bool = False,
) -> Deployment:
    """A deployment of a graph for all labels, and one for each group from where its layers leave the first one's.

    Args:
        kind: its name.
        network: the graph of all networks.
        costs: those of this graph.
        first: the tensors of this graph that the first level computes.
        second: each group's head, and the tensors that it computes.
        also_read: outputs of the first level that every second level reads too.
    """
    starts = {head.name: frontier(network, tensors, first) for head, tensors in second}
    # The first graph hands on each tensor that a second one starts from; all of them have the images anyway.
    handed_on = tuple(dict.fromkeys(name for names in starts.values() for name in names if name != IMAGES))
    stem, specific = f"{kind}.{COMBINED}", {"runtime_specific": runtime_specific}
    graphs = [GraphSpec(stem=stem, heads=(COMBINED,), handed_on=handed_on, **specific)]
    for head, _ in second:
        inputs = (*starts[head.name], *also_read)
        graphs.append(GraphSpec(stem=f"{kind}.{head.role}", heads=(head.name,), inputs=inputs, **specific))
    # The second level costs what it adds to the first, as often as it ran on validation.
    level1 = costs.cost(first).flops
    more = {head.role: costs.cost([*first, *tensors]).flops - level1 for head, tensors in second}
    added = sum(firing.fraction * more[group] for firing in gate.firings for group in firing.groups)
    cuts = {COMBINED: TOP, **{head.role: head.place for head, _ in second}}
    return Deployment(name=kind, kind=kind, graphs=tuple(graphs), cuts=cuts, flops=round(level1 + added))
