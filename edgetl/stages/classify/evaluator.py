"""The evaluator that a study's accuracy control asks: top-1 of every deployment on the validation images."""

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
    """The evaluator of all deployments at once; ``graphs`` together have the outputs of all of their heads."""
    heads, labels = {head.name: head for head in bundle.heads}, bundle.labels
    deployments = distinct(shortlist.deployments)

    def prediction(deployment: Deployment, outputs: Outputs) -> Float32Array:
        # Must combine heads as `edgetl.stages.classify.serving.predictor` does with engines: control would otherwise
        # keep the accuracy of a deployment that nobody runs.
        if deployment.kind != CASCADE:
            return merge_probabilities({name: outputs[name] for name in deployment.heads}, heads, labels)
        assert shortlist.gate is not None, "a cascade has a gate"
        combined, second = outputs[COMBINED], []
        for name in deployment.heads[1:]:
            rows = fired_rows(combined, labels, bundle.groups[heads[name].role], shortlist.gate.threshold)
            second.append((heads[name], rows, outputs[name][rows]))
        return apply_second_level(combined, labels, second)

    def answers(outputs: Outputs) -> dict[str, Float32Array]:
        return {one.name: prediction(one, outputs) for one in deployments}

    truth = np.array([labels.index(sample.label) for sample in samples], np.int64)
    return ClassifierEvaluator(
        graphs, samples, root, bundle.preprocessing, dict.fromkeys((one.name for one in deployments), truth), answers
    )
