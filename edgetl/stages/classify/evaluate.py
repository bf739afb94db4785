"""The stage `evaluate`: top-1 accuracy of all engines on the test images, which no stage before learns from."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.arrays import Float32Array, Int64Array, UInt8Array
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json, write_bytes, write_json
from edgetl.artifacts.results import DeploymentResult, Evaluation
from edgetl.data.index_images import check_broken_fraction
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.measure.accuracy import compare_accuracies, top1_accuracy
from edgetl.stages import build_engine
from edgetl.stages.build_engine import PlannedDeployment, engine_paths, planned_deployments
from edgetl.stages.classify.index import read_index
from edgetl.stages.classify.serving import predictor
from edgetl.stages.serving import load, run_options
from edgetl.stages.stage import Context

ClassifierFunction = Callable[[Float32Array], Float32Array]


def inputs(context: Context) -> dict[str, Any]:
    return build_engine.inputs(context)


def work(context: Context) -> list[Path]:
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    planned = planned_deployments(context)
    able = [one for one in planned if one.unsupported is None]
    gate = read_json(context.run.shortlist, Shortlist).gate
    # One thread each: the stream shows batches to the engines from as many threads as there are cores.
    loaded = load({one.title: (one.deployment, engine_paths(context, one)) for one in able}, run_options(context, 1))
    predictors = {one.title: predictor(one.deployment, loaded[one.title], bundle, gate) for one in able}
    truth, predictions, broken = _predict(context, bundle, predictors)
    results = tuple(_result(one, predictions, truth, bundle, context.runtime) for one in planned)
    for one in results:
        if one.accuracy is not None:
            context.reporter.message(f"evaluate: {one.title}: {one.accuracy.overall.value:.1%} of {len(truth)} images")
    comparisons = compare_accuracies(predictions, truth)
    evaluation = Evaluation(images=len(truth), deployments=results, comparisons=comparisons, broken=broken)
    folder, archive = context.run.measurements, io.BytesIO()
    arrays: dict[str, npt.NDArray[np.generic]] = {"truth": truth, **predictions}
    np.savez_compressed(archive, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
    write_json(folder / "accuracy.json", evaluation)
    write_bytes(folder / "predictions.npz", archive.getvalue())
    return [folder / "accuracy.json", folder / "predictions.npz"]


def _predict(
    context: Context, bundle: Bundle, predictors: Mapping[str, ClassifierFunction]
) -> tuple[Int64Array, dict[str, Float32Array], tuple[BrokenFile, ...]]:
    """The true labels' positions (N), N x labels probabilities of every deployment, and the broken files.

    Every image is decoded once and shown to all deployments.
    """
    index, root = read_index(context)

    def predict(images: UInt8Array) -> dict[str, Float32Array]:
        pixels = to_input(images)
        return {title: predictor(pixels) for title, predictor in predictors.items()}

    rows: list[Int64Array] = []
    results: list[dict[str, Float32Array]] = []
    broken: list[BrokenFile] = []
    with context.reporter.progress("evaluating", len(index.test)) as advance:
        for batch in stream(index.test, root, renderer(bundle.preprocessing), predict):
            broken.extend(batch.broken)
            rows.append(batch.rows)
            results.append(batch.result)
            advance(len(batch.rows) + len(batch.broken))
    for file in broken:
        context.reporter.message(f"evaluate: left out {file.path}: {file.reason}")
    check_broken_fraction(broken, len(index.test), context.study.data.max_broken_fraction)
    labels = bundle.labels
    truth = np.array([labels.index(index.test[row].label) for row in np.concatenate(rows)], dtype=np.int64)
    return truth, {title: np.concatenate([r[title] for r in results]) for title in predictors}, tuple(broken)


def _result(
    candidate: PlannedDeployment,
    predictions: Mapping[str, Float32Array],
    truth: Int64Array,
    bundle: Bundle,
    runtime: str,
) -> DeploymentResult:
    accuracy = None
    if candidate.unsupported is None:
        accuracy = top1_accuracy(predictions[candidate.title], truth, bundle.labels, bundle.groups)
    return DeploymentResult(
        name=candidate.deployment.name,
        precision=candidate.precision,
        runtime=runtime,
        cuts=candidate.deployment.cuts,
        flops=candidate.deployment.flops,
        unsupported=candidate.unsupported,
        accuracy=accuracy,
    )
