"""The evaluator that a study's accuracy control asks: top-1 of every deployment on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.deployment import Shortlist, distinct
from edgetl.artifacts.files import read_json
from edgetl.graph.parity import Outputs
from edgetl.stages.accuracy_evaluator import ClassifierEvaluator
from edgetl.stages.classify.serving import service
from edgetl.stages.stage import Context


def evaluator_of_study(
    graphs: Sequence[onnx.ModelProto], context: Context, samples: Sequence[Sample], root: Path, bundle: Bundle
) -> ClassifierEvaluator:
    """The evaluator of all deployments at once; ``graphs`` together have the outputs of all of their heads."""
    serve = service(context)
    deployments = distinct(read_json(context.run.shortlist, Shortlist).deployments)

    def answers(outputs: Outputs) -> dict[str, Float32Array]:
        return {one.name: serve.deployed(one, outputs) for one in deployments}

    truth = np.array([serve.labels.index(sample.label) for sample in samples], np.int64)
    truths = dict.fromkeys((one.name for one in deployments), truth)
    return ClassifierEvaluator(graphs, samples, root, bundle.preprocessing, truths, answers)
