"""Heads to a shortlist: the deployments that are built, and when a cascade's second level runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetl.artifacts.bundle import IMAGES, TOP
from edgetl.artifacts.deployment import (
    CASCADE,
    COMBINED,
    Deployment,
    Gate,
    GraphSpec,
    Shortlist,
    layout,
    roles,
    tree_name,
)
from edgetl.artifacts.detector_bundle import DetectionBundle, DetectionHead
from edgetl.artifacts.files import read_json, write_json
from edgetl.graph.cost import CostModel
from edgetl.graph.extract import frontier
from edgetl.graph.model import load_model
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match
from edgetl.stages.cascade_gate import firings
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.serving import Service
from edgetl.stages.detect.val_detections import read_val_detections
from edgetl.stages.stage import Context

_OWN_NETWORKS = (COMBINED, "specialised")
"""Deployments in which every head has a network of its own, whose last layers may be tuned."""

_THRESHOLDS = tuple(percent / 100 for percent in range(5, 100, 5))


def inputs(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    network = load_model(context.run.bundle / "network.onnx")
    costs = CostModel(network)
    deployments: list[Deployment] = []
    gate = None
    for kind in context.study.deployments:
        if kind == CASCADE:
            gate = _gate(context, bundle)
            deployments.append(_cascade(bundle, network, costs, gate))
        else:
            deployments += [_deployment(kind, heads, costs) for heads in _trees(kind, bundle)]
    write_json(context.run.shortlist, Shortlist(deployments=tuple(deployments), trees=(), gate=gate))
    return [context.run.shortlist]


def _trees(kind: str, bundle: DetectionBundle) -> Iterator[tuple[DetectionHead, ...]]:
    """The heads of a deployment on the frozen trunk, and those with their own last layers."""
    heads = [head for head in bundle.heads if head.first_level is None]
    wanted = roles(kind, tuple(bundle.groups))
    for cut in dict.fromkeys(head.cut for head in heads):
        if cut == TOP or kind in _OWN_NETWORKS:
            yield tuple(next(head for head in heads if (head.role, head.cut) == (role, cut)) for role in wanted)


def _deployment(kind: str, heads: Sequence[DetectionHead], costs: CostModel) -> Deployment:
    by_name = {head.name: head for head in heads}
    graphs = tuple(spec.model_copy(update={"runtime_specific": True}) for spec in layout(kind, heads))
    flops = sum(costs.cost([raw for name in spec.heads for raw in by_name[name].raws]).flops for spec in graphs)
    cuts = {head.role: head.place for head in heads}
    return Deployment(name=tree_name(kind, heads), kind=kind, graphs=graphs, cuts=cuts, flops=flops)


def _cascade(bundle: DetectionBundle, network: onnx.ModelProto, costs: CostModel, gate: Gate) -> Deployment:
    """All labels first; then a graph for each group, from the maps and raw outputs of the first one."""
    first = next(head for head in bundle.heads if head.name == COMBINED)
    second = [head for head in bundle.heads if head.first_level is not None]
    starts = {head.name: frontier(network, head.raws, first.raws) for head in second}
    handed_on = dict.fromkeys(name for names in starts.values() for name in names if name != IMAGES)
    behind = [
        GraphSpec(stem=f"{CASCADE}.{head.role}", heads=(head.name,), inputs=starts[head.name], runtime_specific=True)
        for head in second
    ]
    level1 = costs.cost(first.raws).flops
    more = {head.role: costs.cost([*first.raws, *head.raws]).flops - level1 for head in second}
    expected = sum(firing.fraction * more[group] for firing in gate.firings for group in firing.groups)
    return Deployment(
        name=CASCADE,
        kind=CASCADE,
        graphs=(
            GraphSpec(
                stem=f"{CASCADE}.{COMBINED}", heads=(COMBINED,), handed_on=tuple(handed_on), runtime_specific=True
            ),
            *behind,
        ),
        cuts={COMBINED: TOP, **{head.role: TOP for head in second}},
        flops=level1 + round(expected),
    )


def _gate(context: Context, bundle: DetectionBundle) -> Gate:
    """The threshold with the highest mAP@0.5 on validation; of equals the highest, where the least runs."""
    index, _ = read_index(context)
    said = read_val_detections(context.run.bundle / "val_detections.npz")
    images = [index.val[row] for row in said.rows]
    second = {head.role: head.name for head in bundle.heads if head.first_level is not None}

    def served(threshold: float) -> Service:
        return Service(bundle, context.study.detection.nms, threshold)

    def worth(threshold: float) -> float:
        serve = served(threshold)
        numbered = {name: [serve.numbered(name, one) for one in said.of(name)] for name in (COMBINED, *second.values())}
        found = serve.in_turn(numbered[COMBINED], second, lambda name, fired: list(compress(numbered[name], fired)))
        return ap50(match(images, found, bundle.labels))

    threshold = max(_THRESHOLDS, key=lambda candidate: (worth(candidate), candidate))
    serve = served(threshold)
    first = [serve.numbered(COMBINED, one) for one in said.of(COMBINED)]
    fired = np.stack([serve.fires(group, first) for group in second], axis=1)
    return Gate(threshold=threshold, firings=firings(tuple(second), fired))
