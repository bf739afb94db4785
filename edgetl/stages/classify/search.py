"""The stage `search`: which of the trees that the cuts make possible are built, and the gate of a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.artifacts.bundle import FEATURES, TOP, Bundle
from edgetl.artifacts.deployment import Deployment, Gate, Shortlist
from edgetl.artifacts.files import read_json, write_json
from edgetl.artifacts.results import Tree
from edgetl.config import COMBINED, DeploymentKind
from edgetl.graph.cost import CostModel
from edgetl.graph.model import load_model
from edgetl.stages.cascade import choose_gate, gated_deployment
from edgetl.stages.classify.serving import ClassifierService
from edgetl.stages.classify.trees import ValidationOutputs, accuracies, costed, front, grow, thin
from edgetl.stages.stage import Context
from edgetl.train.linear_heads import read_tensors

_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


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
    for kind in context.study.kinds:
        if kind.gated:
            second = [(head, (head.features,)) for head in bundle.heads if head.first_level is not None]
            gate = best_gate(bundle, validation, [head.name for head, _ in second])
            deployments.append(gated_deployment(kind.name, trunk, costs, (FEATURES,), second, gate, (COMBINED,)))
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
    context: Context, kind: DeploymentKind, bundle: Bundle, validation: ValidationOutputs, costs: CostModel
) -> list[tuple[Tree, Deployment]]:
    """Every tree of a deployment; those to build are marked as measured."""
    heads = [head for head in bundle.heads if kind.tunable or head.place == TOP]
    every = list(grow(kind.roles(bundle.groups), heads))
    if kind.frozen_name in context.study.deployments:
        # Branches that all begin at the top are the deployment `shared`, which would be built and measured twice.
        every = [tree for tree in every if any(head.place != TOP for head in tree)]
    values = accuracies(every, validation)
    grown = [costed(kind.name, tree, accuracy, costs) for tree, accuracy in zip(every, values, strict=True)]
    built = {tree.name for tree in thin(front([tree for tree, _ in grown]), context.study.search.trees)}
    # The tree with everything frozen is always built: it is what every cut has to beat.
    built |= {tree.name for tree, _ in grown if set(tree.cuts.values()) == {TOP}}
    return [(tree.replaced(measured=tree.name in built), deployment) for tree, deployment in grown]


def best_gate(bundle: Bundle, validation: ValidationOutputs, second: Sequence[str]) -> Gate:
    """The threshold with the highest top-1 accuracy on validation."""
    right = np.array([bundle.labels.index(label) for label in validation.truth])
    answers = validation.probabilities
    return choose_gate(
        {threshold: ClassifierService(bundle, threshold) for threshold in _THRESHOLDS},
        answers[COMBINED],
        {name: answers[name] for name in second},
        some=lambda answer, rows: answer[rows],
        score=lambda answer: float((answer.argmax(axis=1) == right).mean()),
    )
