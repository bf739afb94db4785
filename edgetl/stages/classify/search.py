"""The stage `search`: which of the trees that the cuts make possible are built, and the gate of a cascade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from edgetl.artifacts.bundle import FEATURES, IMAGES, TOP, Bundle
from edgetl.artifacts.deployment import CASCADE, COMBINED, TUNABLE, Deployment, Gate, GraphSpec, Shortlist, roles
from edgetl.artifacts.files import read_json, write_json
from edgetl.artifacts.results import Tree
from edgetl.graph.cost import CostModel
from edgetl.graph.extract import frontier
from edgetl.graph.model import load_model
from edgetl.stages.cascade_gate import choose_gate
from edgetl.stages.classify.trees import ValidationOutputs, accuracies, costed, front, grow, thin
from edgetl.stages.stage import Context
from edgetl.train.linear_heads import read_tensors


def inputs(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    trunk = load_model(context.run.bundle / "trunk.onnx")
    validation, costs = read_validation(context.run.bundle, bundle), CostModel(trunk)
    trees: list[Tree] = []
    deployments: list[Deployment] = []
    gate = None
    for kind in context.study.deployments:
        if kind == CASCADE:
            cascade, gate = _cascade(bundle, validation, trunk, costs)
            deployments.append(cascade)
        else:
            grown = _grow(context, kind, bundle, validation, costs)
            trees += [tree for tree, _ in grown]
            deployments += [deployment for tree, deployment in grown if tree.measured]
    swept = trees if context.study.backbone.cut is not None else ()
    if swept:
        built = sum(tree.measured for tree in swept)
        context.reporter.message(f"search: {len(swept)} trees, of which {built} are built and measured")
    write_json(context.run.shortlist, Shortlist(deployments=tuple(deployments), trees=tuple(swept), gate=gate))
    return [context.run.shortlist]


def read_validation(folder: Path, bundle: Bundle) -> ValidationOutputs:
    """The heads' probabilities of the validation images, as `finetune` wrote them."""
    tensors = read_tensors(folder / "validation.safetensors")
    labels = bundle.labels
    truth = tuple(labels[position] for position in tensors.pop("truth"))
    return ValidationOutputs({name.removeprefix("head/"): values for name, values in tensors.items()}, truth)


def _grow(
    context: Context, kind: str, bundle: Bundle, validation: ValidationOutputs, costs: CostModel
) -> list[tuple[Tree, Deployment]]:
    """Every tree of a deployment; those to build are marked as measured."""
    heads = [head for head in bundle.heads if kind in TUNABLE or head.place == TOP]
    every = list(grow(roles(kind, tuple(bundle.groups)), heads))
    if kind == "branched" and "shared" in context.study.deployments:
        # Branches that all begin at the top are the deployment `shared`, which would be built and measured twice.
        every = [tree for tree in every if any(head.place != TOP for head in tree)]
    values = accuracies(every, validation)
    grown = [costed(kind, tree, accuracy, costs) for tree, accuracy in zip(every, values, strict=True)]
    built = {tree.name for tree in thin(front([tree for tree, _ in grown]), context.study.search.trees)}
    # The tree with everything frozen is always built: it is what every cut has to beat.
    built |= {tree.name for tree, _ in grown if set(tree.cuts.values()) == {TOP}}
    return [(tree.replaced(measured=tree.name in built), deployment) for tree, deployment in grown]


def _cascade(
    bundle: Bundle, validation: ValidationOutputs, trunk: onnx.ModelProto, costs: CostModel
) -> tuple[Deployment, Gate]:
    """The cascade: a graph of all labels on the frozen trunk, one for each group from where its branch leaves it."""
    second = {head.role: head for head in bundle.heads if head.first_level is not None}
    refined = {group: (head, validation.probabilities[head.name]) for group, head in second.items()}
    gate = choose_gate(validation.probabilities[COMBINED], refined, bundle.groups, validation.truth)
    # The first graph hands on each tensor that a second one starts from; all of them have the images anyway.
    starts = {group: frontier(trunk, [head.features], [FEATURES]) for group, head in second.items()}
    handed_on = dict.fromkeys(name for names in starts.values() for name in names if name != IMAGES)
    first = GraphSpec(stem=f"{CASCADE}.{COMBINED}", heads=(COMBINED,), handed_on=tuple(handed_on))
    behind = [
        GraphSpec(stem=f"{CASCADE}.{group}", heads=(head.name,), inputs=(*starts[group], COMBINED))
        for group, head in second.items()
    ]
    # The second level costs what it adds to the first, as often as it ran on validation.
    level1 = costs.cost([FEATURES]).flops
    more = {group: costs.cost([FEATURES, head.features]).flops - level1 for group, head in second.items()}
    expected = level1 + sum(firing.fraction * more[group] for firing in gate.firings for group in firing.groups)
    cascade = Deployment(
        name=CASCADE,
        kind=CASCADE,
        graphs=(first, *behind),
        cuts={COMBINED: TOP, **{group: head.place for group, head in second.items()}},
        flops=round(expected),
    )
    return cascade, gate
