"""The stage `evaluate`: the accuracy of all engines on the test images, which no stage before learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.arrays import UInt8Array
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import write_json
from edgetl.artifacts.results import Evaluation
from edgetl.data.index_images import check_broken_fraction
from edgetl.data.stream import stream, to_input
from edgetl.data.views import renderer
from edgetl.stages import build_engine
from edgetl.stages.build_engine import engine_paths, planned_deployments
from edgetl.stages.serving import DeploymentEngines, load, run_options
from edgetl.stages.stage import Context
from edgetl.stages.task import Scoring
from edgetl.stages.tasks import task_of


def inputs(context: Context) -> dict[str, Any]:
    return {**build_engine.inputs(context), "metric": context.study.decided_by.name}


def work(context: Context) -> list[Path]:
    task, planned = task_of(context.study), planned_deployments(context)
    metric = context.study.decided_by.name
    able = {one.title: (one.deployment, engine_paths(context, one)) for one in planned if one.unsupported is None}
    scoring = task.scoring(context, list(able))
    broken = _show_all(context, able, scoring)
    figures = scoring.figures()
    results = tuple(one.result(context.runtime).replaced(**figures.get(one.title, {})) for one in planned)
    for one in results:
        if one.accuracy is not None:
            share = f"{metric} {one.accuracy.overall.value:.1%} of {scoring.images} images"
            context.reporter.message(f"evaluate: {one.title}: {share}")
    evaluation = Evaluation(
        metric=metric,
        images=scoring.images,
        deployments=results,
        comparisons=scoring.comparisons(),
        broken=broken,
    )
    folder = context.run.measurements
    write_json(folder / "accuracy.json", evaluation)
    return [folder / "accuracy.json", scoring.write(folder)]


def _show_all(context: Context, able: DeploymentEngines, scoring: Scoring) -> tuple[BrokenFile, ...]:
    """Decode every test image once and show it to all deployments; return the files that do not decode."""
    task = task_of(context.study)
    index, root = task.read_index(context)
    # One thread each: the stream shows batches to the engines from as many threads as there are cores.
    loaded, serve = load(able, run_options(context, 1)), task.service(context)
    predictors = {title: serve.predictor(able[title][0], engines) for title, engines in loaded.items()}

    def predict(images: UInt8Array) -> dict[str, Any]:
        pixels = to_input(images)
        return {title: predictor(pixels) for title, predictor in predictors.items()}

    broken: list[BrokenFile] = []
    with context.reporter.progress("evaluating", len(index.test)) as advance:
        for batch in stream(index.test, root, renderer(task.read_bundle(context).preprocessing), predict):
            broken.extend(batch.broken)
            scoring.add(batch.rows, batch.result)
            advance(len(batch.rows) + len(batch.broken))
    for file in broken:
        context.reporter.message(f"evaluate: left out {file.path}: {file.reason}")
    check_broken_fraction(broken, len(index.test), context.study.data.max_broken_fraction)
    return tuple(broken)
