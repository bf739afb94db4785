"""Engines to accuracy: the one time that the test set is touched."""

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
    able = [candidate for candidate in planned_deployments(context) if candidate.unsupported is None]
    gate = read_json(context.run.shortlist, Shortlist).gate
    loaded = load({one.title: (one.deployment, engine_paths(context, one)) for one in able}, run_options(context, 1))
    predictors = {one.title: predictor(one.deployment, loaded[one.title], bundle, gate) for one in able}
    truth, predictions, broken = _predict(context, bundle, predictors)
    measured = [
        _score(candidate, predictions, truth, bundle, context.runtime) for candidate in planned_deployments(context)
    ]
    for one in measured:
        if one.accuracy is not None:
            context.reporter.message(f"evaluate: {one.title}: {one.accuracy.overall.value:.1%} of {len(truth)} images")
    evaluation = Evaluation(
        images=len(truth),
        deployments=tuple(measured),
        comparisons=compare_accuracies(predictions, truth),
        broken=broken,
    )
    folder = context.run.measurements
    write_json(folder / "accuracy.json", evaluation)
    write_bytes(folder / "predictions.npz", _archive({"truth": truth, **predictions}))
    return [folder / "accuracy.json", folder / "predictions.npz"]


def _predict(
    context: Context, bundle: Bundle, predictors: Mapping[str, ClassifierFunction]
) -> tuple[Int64Array, dict[str, Float32Array], tuple[BrokenFile, ...]]:
    """Every image is decoded once and shown to all deployments."""
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


def _score(
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


def _archive(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
    return buffer.getvalue()
