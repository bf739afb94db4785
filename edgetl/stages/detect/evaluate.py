"""The stage `evaluate`: average precision of all engines on the test images, which no stage before learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.arrays import Float32Array, UInt8Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json, write_bytes, write_json
from edgetl.artifacts.results import DeploymentResult, Evaluation
from edgetl.data.index_images import check_broken_fraction
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.measure.average_precision import as_accuracy, compare_map50, mean_average_precision
from edgetl.measure.matching import Matches, match
from edgetl.stages import build_engine
from edgetl.stages.build_engine import PlannedDeployment, engine_paths, planned_deployments
from edgetl.stages.detect.index import read_index
from edgetl.stages.detect.serving import DetectorFunction, service
from edgetl.stages.detect.validation import ValidationDetections, ValidationImages
from edgetl.stages.serving import load, run_options
from edgetl.stages.stage import Context


def inputs(context: Context) -> dict[str, Any]:
    return build_engine.inputs(context)


def work(context: Context) -> list[Path]:
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    planned = planned_deployments(context)
    able = [one for one in planned if one.unsupported is None]
    # One thread each: the stream shows batches to the engines from as many threads as there are cores.
    loaded = load({one.title: (one.deployment, engine_paths(context, one)) for one in able}, run_options(context, 1))
    serve = service(context)
    predictors = {one.title: serve.predictor(one.deployment, loaded[one.title]) for one in able}
    images, detections, broken = _detect(context, bundle, predictors)
    matches = {title: match(images, own, bundle.labels) for title, own in detections.heads.items()}
    results = tuple(_result(one, matches, bundle, context) for one in planned)
    evaluation = Evaluation(
        metric="mAP@0.5", images=len(images), deployments=results, comparisons=compare_map50(matches), broken=broken
    )
    folder = context.run.measurements
    write_json(folder / "accuracy.json", evaluation)
    write_bytes(folder / "detections.npz", detections.to_bytes())
    return [folder / "accuracy.json", folder / "detections.npz"]


def _detect(
    context: Context, bundle: DetectionBundle, predictors: Mapping[str, DetectorFunction]
) -> tuple[list[BoxedImage], ValidationDetections, tuple[BrokenFile, ...]]:
    """The images that decode, every deployment's detections in pixels of the image, and the broken files.

    Every image is decoded once and shown to all deployments.
    """
    index, root = read_index(context)

    def predict(images: UInt8Array) -> dict[str, list[Float32Array]]:
        pixels = to_input(images)
        return {title: predictor(pixels) for title, predictor in predictors.items()}

    rows: list[int] = []
    detections: dict[str, list[Float32Array]] = {title: [] for title in predictors}
    broken: list[BrokenFile] = []
    with context.reporter.progress("evaluating", len(index.test)) as advance:
        for batch in stream(index.test, root, renderer(bundle.preprocessing), predict):
            broken.extend(batch.broken)
            rows += batch.rows.tolist()
            # By rows, not by position in the batch: files that do not decode leave gaps.
            here = ValidationImages([index.test[row] for row in batch.rows], bundle.preprocessing)
            for title, own in batch.result.items():
                detections[title] += here.on_images(own)
            advance(len(batch.rows) + len(batch.broken))
    for file in broken:
        context.reporter.message(f"evaluate: left out {file.path}: {file.reason}")
    check_broken_fraction(broken, len(index.test), context.study.data.max_broken_fraction)
    return [index.test[row] for row in rows], ValidationDetections(np.array(rows, np.int64), detections), tuple(broken)


def _result(
    candidate: PlannedDeployment, matches: Mapping[str, Matches], bundle: DetectionBundle, context: Context
) -> DeploymentResult:
    row = DeploymentResult(
        name=candidate.deployment.name,
        precision=candidate.precision,
        runtime=context.runtime,
        cuts=candidate.deployment.cuts,
        flops=candidate.deployment.flops,
        unsupported=candidate.unsupported,
    )
    if candidate.unsupported is not None:
        return row
    precision = mean_average_precision(matches[candidate.title], bundle.groups)
    context.reporter.message(f"evaluate: {candidate.title}: mAP@0.5 {precision.overall.ap50.value:.1%}")
    return row.replaced(accuracy=as_accuracy(precision), average_precision=precision)
