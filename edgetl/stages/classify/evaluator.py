"""What a study's guard judges by: top-1 of every deployment on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.deployment import (
    CASCADE,
    COMBINED,
    Deployment,
    Shortlist,
    apply_second_level,
    distinct,
    fired_rows,
    merge_probabilities,
)
from edgetl.graph.parity import Outputs
from edgetl.stages.accuracy_evaluator import ClassifierEvaluator


def evaluator_of_study(
    graphs: Sequence[onnx.ModelProto], samples: Sequence[Sample], root: Path, bundle: Bundle, shortlist: Shortlist
) -> ClassifierEvaluator:
    """A judge for all deployments at once, by graphs that together have the outputs of all of their heads."""
    deployments = distinct(shortlist.deployments)

    def answers(outputs: Outputs) -> dict[str, Float32Array]:
        return {one.name: _prediction(one, outputs, bundle, shortlist) for one in deployments}

    truth = np.array([bundle.labels.index(sample.label) for sample in samples], np.int64)
    return ClassifierEvaluator(
        graphs, samples, root, bundle.preprocessing, dict.fromkeys((one.name for one in deployments), truth), answers
    )


def _prediction(deployment: Deployment, outputs: Outputs, bundle: Bundle, shortlist: Shortlist) -> Float32Array:
    """One probability per label, as `edgetl.stages.classify.serving.predictor` makes it of engines."""
    heads = {head.name: head for head in bundle.heads}
    if deployment.kind != CASCADE:
        return merge_probabilities({name: outputs[name] for name in deployment.heads}, heads, bundle.labels)
    assert shortlist.gate is not None, "a cascade has a gate"
    combined, threshold = outputs[COMBINED], shortlist.gate.threshold
    said = []
    for name in deployment.heads[1:]:
        rows = fired_rows(combined, bundle.labels, bundle.groups[heads[name].role], threshold)
        said.append((heads[name], rows, outputs[name][rows]))
    return apply_second_level(combined, bundle.labels, said)
