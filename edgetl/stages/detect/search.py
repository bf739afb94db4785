"""The stage `search`: the deployments that are built, and the gate of a cascade."""

from __future__ import annotations

from collections.abc import Iterator
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
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json, write_json
from edgetl.graph.cost import CostModel
from edgetl.graph.extract import frontier
from edgetl.graph.model import load_model
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match
from edgetl.stages.cascade_gate import firings
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.serving import Service
from edgetl.stages.detect.validation import read_val_detections
from edgetl.stages.stage import Context

OWN_NETWORKS = (COMBINED, "specialised")
"""Deployments in which every head has a network of its own, whose last layers may be tuned."""

_THRESHOLDS = tuple(percent / 100 for percent in range(5, 100, 5))
"""Fewer than for classifiers, because each costs a matching of all boxes."""


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
            deployments += _deployments(kind, bundle, costs)
    write_json(context.run.shortlist, Shortlist(deployments=tuple(deployments), trees=(), gate=gate))
    return [context.run.shortlist]


def _deployments(kind: str, bundle: DetectionBundle, costs: CostModel) -> Iterator[Deployment]:
    """A deployment on the frozen trunk, and one with the heads' own last layers where each has its own network."""
    first = [head for head in bundle.heads if head.first_level is None]
    for cut in dict.fromkeys(head.cut for head in first):
        if cut != TOP and kind not in OWN_NETWORKS:
            continue
        by_role = {head.role: head for head in first if head.cut == cut}
        heads = [by_role[role] for role in roles(kind, tuple(bundle.groups))]
        raws = {head.name: head.raws for head in heads}
        # Suppression is another graph for each runtime, so files differ between runtimes in float as well.
        graphs = tuple(spec.replaced(runtime_specific=True) for spec in layout(kind, heads))
        flops = sum(costs.cost([raw for name in spec.heads for raw in raws[name]]).flops for spec in graphs)
        cuts = {head.role: head.place for head in heads}
        yield Deployment(name=tree_name(kind, heads), kind=kind, graphs=graphs, cuts=cuts, flops=flops)


def _cascade(bundle: DetectionBundle, network: onnx.ModelProto, costs: CostModel, gate: Gate) -> Deployment:
    """The cascade: a graph of all labels, and one for each group from the first one's maps and raw outputs."""
    first = next(head for head in bundle.heads if head.name == COMBINED)
    second = [head for head in bundle.heads if head.first_level is not None]
    starts = {head.name: frontier(network, head.raws, first.raws) for head in second}
    # The first graph hands on each tensor that a second one starts from; all of them have the images anyway.
    handed_on = tuple(dict.fromkeys(name for names in starts.values() for name in names if name != IMAGES))
    stem = f"{CASCADE}.{COMBINED}"
    graphs = [
        GraphSpec(stem=stem, heads=(COMBINED,), handed_on=handed_on, runtime_specific=True),
        *(
            GraphSpec(stem=f"{CASCADE}.{one.role}", heads=(one.name,), inputs=starts[one.name], runtime_specific=True)
            for one in second
        ),
    ]
    # The second level costs what it adds to the first, as often as it ran on validation.
    level1 = costs.cost(first.raws).flops
    more = {head.role: costs.cost([*first.raws, *head.raws]).flops - level1 for head in second}
    expected = sum(firing.fraction * more[group] for firing in gate.firings for group in firing.groups)
    return Deployment(
        name=CASCADE,
        kind=CASCADE,
        graphs=tuple(graphs),
        cuts={COMBINED: TOP, **{head.role: TOP for head in second}},
        flops=level1 + round(expected),
    )


def _gate(context: Context, bundle: DetectionBundle) -> Gate:
    """The threshold with the highest mAP@0.5 on validation; of equals the highest, where the least runs."""
    index, _ = read_index(context)
    stored = read_val_detections(context.run.bundle / "val_detections.npz")
    images = [index.val[row] for row in stored.rows]
    second = {head.role: head.name for head in bundle.heads if head.first_level is not None}
    serve = {threshold: Service(bundle, context.study.detection.nms, threshold) for threshold in _THRESHOLDS}
    detections = {
        name: [serve[_THRESHOLDS[0]].numbered(name, one) for one in stored.heads[name]]
        for name in (COMBINED, *second.values())
    }
    first = detections[COMBINED]

    def map50(threshold: float) -> float:
        boxes = serve[threshold].in_turn(first, second, lambda name, fired: list(compress(detections[name], fired)))
        return ap50(match(images, boxes, bundle.labels))

    threshold = max(_THRESHOLDS, key=lambda candidate: (map50(candidate), candidate))
    fired = np.stack([serve[threshold].fires(group, first) for group in second], axis=1)
    return Gate(threshold=threshold, firings=firings(tuple(second), fired))
