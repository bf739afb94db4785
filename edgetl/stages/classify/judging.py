"""What a study's guard judges by: top-1 of every deployment on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.deployment import CASCADE, COMBINED, Deployment, Shortlist, distinct, fires, merge, refine
from edgetl.artifacts.index import Sample
from edgetl.graph.parity import Outputs
from edgetl.stages.judging import TopOne

Array = npt.NDArray[np.float32]


def judge_by_top_one(
    graphs: Sequence[onnx.ModelProto], samples: Sequence[Sample], root: Path, bundle: Bundle, shortlist: Shortlist
) -> TopOne:
    """A judge for all deployments at once, by graphs that together have the outputs of all of their heads."""
    deployments = distinct(shortlist.deployments)

    def answers(outputs: Outputs) -> dict[str, Array]:
        return {one.name: _prediction(one, outputs, bundle, shortlist) for one in deployments}

    truth = np.array([bundle.labels.index(sample.label) for sample in samples], np.int64)
    return TopOne(
        graphs, samples, root, bundle.preprocessing, dict.fromkeys((one.name for one in deployments), truth), answers
    )


def _prediction(deployment: Deployment, outputs: Outputs, bundle: Bundle, shortlist: Shortlist) -> Array:
    """One probability per label, as `edgetl.stages.classify.serving.predictor` makes it of engines."""
    heads = {head.name: head for head in bundle.heads}
    if deployment.kind != CASCADE:
        return merge({name: outputs[name] for name in deployment.heads}, heads, bundle.labels)
    assert shortlist.gate is not None, "a cascade has a gate"
    combined, threshold = outputs[COMBINED], shortlist.gate.threshold
    said = []
    for name in deployment.heads[1:]:
        rows = fires(combined, bundle.labels, bundle.groups[heads[name].role], threshold)
        said.append((heads[name], rows, outputs[name][rows]))
    return refine(combined, bundle.labels, said)
