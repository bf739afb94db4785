"""Heads to a shortlist: of all trees that the cuts make possible, those that are worth building."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgetl.artifacts.bundle import FEATURES, IMAGES, TOP, Bundle, ClassificationHead
from edgetl.artifacts.deployment import (
    CASCADE,
    COMBINED,
    TUNABLE,
    Deployment,
    Gate,
    GraphSpec,
    Shortlist,
    layout,
    roles,
    tree_name,
)
from edgetl.artifacts.files import read_json, write_json
from edgetl.artifacts.results import Tree
from edgetl.graph.cost import CostModel
from edgetl.graph.extract import frontier
from edgetl.graph.model import load_model
from edgetl.stages.cascade_gate import choose_gate
from edgetl.stages.classify.trees import ValidationOutputs, accuracies, front, grow, thin
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
            trees += [one.tree for one in grown]
            deployments += [one.deployment for one in grown if one.tree.measured]
    swept = trees if context.study.backbone.cut is not None else ()
    if swept:
        built = sum(tree.measured for tree in swept)
        context.reporter.message(f"search: {len(swept)} trees, of which {built} are built and measured")
    write_json(context.run.shortlist, Shortlist(deployments=tuple(deployments), trees=tuple(swept), gate=gate))
    return [context.run.shortlist]


def read_validation(folder: Path, bundle: Bundle) -> ValidationOutputs:
    """What `finetune` wrote down of the validation images."""
    tensors = read_tensors(folder / "validation.safetensors")
    labels = bundle.labels
    truth = tuple(labels[position] for position in tensors.pop("truth"))
    return ValidationOutputs({name.removeprefix("head/"): values for name, values in tensors.items()}, truth)


@dataclass(frozen=True)
class _Grown:
    tree: Tree
    deployment: Deployment


def _grow(
    context: Context, kind: str, bundle: Bundle, validation: ValidationOutputs, costs: CostModel
) -> tuple[_Grown, ...]:
    """Every tree of a deployment; those that are worth building are marked."""
    choices = [head for head in bundle.heads if kind in TUNABLE or head.place == TOP]
    every = grow(roles(kind, tuple(bundle.groups)), choices)
    trees = [heads for heads in every if not _is_shared(context, kind, heads)]
    values = accuracies(trees, validation)
    grown = [_tree(kind, heads, accuracy, costs) for heads, accuracy in zip(trees, values, strict=True)]
    worth = {tree.name for tree in thin(front([one.tree for one in grown]), context.study.search.trees)}
    # All frozen is what every cut is compared with.
    worth |= {one.tree.name for one in grown if set(one.tree.cuts.values()) == {TOP}}
    return tuple(
        _Grown(one.tree.model_copy(update={"measured": one.tree.name in worth}), one.deployment) for one in grown
    )


def _is_shared(context: Context, kind: str, heads: tuple[ClassificationHead, ...]) -> bool:
    """Branches that begin at the top are what `shared` is; it is not built twice."""
    top = all(head.place == TOP for head in heads)
    return top and kind == "branched" and "shared" in context.study.deployments


def _tree(kind: str, heads: tuple[ClassificationHead, ...], accuracy: float, costs: CostModel) -> _Grown:
    graphs = layout(kind, heads)
    features = {head.name: head.features for head in heads}
    each = [costs.cost([features[name] for name in spec.heads]) for spec in graphs]
    cuts = {head.role: head.place for head in heads}
    flops = sum(cost.flops for cost in each)
    tree = Tree(
        name=tree_name(kind, heads),
        deployment=kind,
        cuts=cuts,
        val_accuracy=accuracy,
        flops=flops,
        parameters=sum(cost.parameters for cost in each),
        relative_latency=sum(cost.relative_latency for cost in each),
        measured=False,
    )
    return _Grown(tree, Deployment(name=tree.name, kind=kind, graphs=graphs, cuts=cuts, flops=flops))


def _cascade(
    bundle: Bundle, validation: ValidationOutputs, trunk: onnx.ModelProto, costs: CostModel
) -> tuple[Deployment, Gate]:
    """All labels first, on the frozen trunk; then a graph for each group, from where its branch leaves the trunk."""
    second = {head.role: head for head in bundle.heads if head.first_level is not None}
    said = {group: (head, validation.probabilities[head.name]) for group, head in second.items()}
    gate = choose_gate(validation.probabilities[COMBINED], said, bundle.groups, validation.truth)
    starts = {group: frontier(trunk, [head.features], [FEATURES]) for group, head in second.items()}
    handed_on = dict.fromkeys(name for names in starts.values() for name in names if name != IMAGES)
    first = GraphSpec(stem=f"{CASCADE}.{COMBINED}", heads=(COMBINED,), handed_on=tuple(handed_on))
    behind = [
        GraphSpec(stem=f"{CASCADE}.{group}", heads=(head.name,), inputs=(*starts[group], COMBINED))
        for group, head in second.items()
    ]
    cascade = Deployment(
        name=CASCADE,
        kind=CASCADE,
        graphs=(first, *behind),
        cuts={COMBINED: TOP, **{group: head.place for group, head in second.items()}},
        flops=round(_expected_flops(second, gate, costs)),
    )
    return cascade, gate


def _expected_flops(second: dict[str, ClassificationHead], gate: Gate, costs: CostModel) -> float:
    """Those of the first level, and of the second as often as it ran on validation."""
    first = costs.cost([FEATURES]).flops
    more = {group: costs.cost([FEATURES, head.features]).flops - first for group, head in second.items()}
    return first + sum(firing.fraction * more[group] for firing in gate.firings for group in firing.groups)
