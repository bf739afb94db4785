"""The stage `search`: the deployments that are built, and the gate of a cascade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from edgetl.artifacts.bundle import TOP
from edgetl.artifacts.deployment import Deployment, Gate, Shortlist, layout, tree_name
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json, write_json
from edgetl.config import COMBINED, DeploymentKind
from edgetl.graph.cost import CostModel
from edgetl.graph.model import load_model
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match
from edgetl.stages.cascade import choose_gate, gated_deployment
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.serving import DetectorService
from edgetl.stages.detect.validation import read_val_detections
from edgetl.stages.stage import Context

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
    for kind in context.study.kinds:
        if kind.gated:
            first = next(head for head in bundle.heads if head.name == COMBINED)
            second = [(head, head.raws) for head in bundle.heads if head.first_level is not None]
            gate = best_gate(context, bundle, [head.name for head, _ in second])
            deployments.append(
                gated_deployment(kind.name, network, costs, first.raws, second, gate, runtime_specific=True)
            )
        else:
            deployments += _deployments(kind, bundle, costs)
    write_json(context.run.shortlist, Shortlist(deployments=tuple(deployments), trees=(), gate=gate))
    return [context.run.shortlist]


def _deployments(kind: DeploymentKind, bundle: DetectionBundle, costs: CostModel) -> Iterator[Deployment]:
    """A deployment on the frozen trunk, and one with the heads' own last layers where each has its own network."""
    first = [head for head in bundle.heads if head.first_level is None]
    for cut in dict.fromkeys(head.cut for head in first):
        if cut != TOP and not kind.own_networks:
            continue
        by_role = {head.role: head for head in first if head.cut == cut}
        heads = [by_role[role] for role in kind.roles(bundle.groups)]
        raws = {head.name: head.raws for head in heads}
        # Suppression is another graph for each runtime, so files differ between runtimes in float as well.
        graphs = tuple(spec.replaced(runtime_specific=True) for spec in layout(kind.name, heads))
        flops = sum(costs.cost([raw for name in spec.heads for raw in raws[name]]).flops for spec in graphs)
        cuts = {head.role: head.place for head in heads}
        yield Deployment(name=tree_name(kind.name, heads), kind=kind.name, graphs=graphs, cuts=cuts, flops=flops)


def best_gate(context: Context, bundle: DetectionBundle, second: Sequence[str]) -> Gate:
    """The threshold with the highest mAP@0.5 on validation."""
    index, _ = read_index(context)
    stored = read_val_detections(context.run.bundle / "val_detections.npz")
    images = [index.val[row] for row in stored.rows]
    services = {score: DetectorService(bundle, context.study.detection.nms, score) for score in _THRESHOLDS}
    # Numbering depends on no threshold: any service does it.
    serve = services[_THRESHOLDS[0]]
    answers = {name: [serve.numbered(name, one) for one in stored.heads[name]] for name in (COMBINED, *second)}
    return choose_gate(
        services,
        answers.pop(COMBINED),
        answers,
        some=lambda answer, rows: list(compress(answer, rows)),
        score=lambda answer: ap50(match(images, answer, bundle.labels)),
    )
