"""What the guard of a detection study judges by: mAP@0.5 of every deployment, as `evaluate` tells it of engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.artifacts.accuracy_control_record import StudyAccuracyControl
from edgetl.artifacts.box_index import Box, BoxedImage, BoxIndex
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import read_json, sha256_file
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import AccuracyControl, Study
from edgetl.data.stream import to_input
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime
from edgetl.graph.parity import Session
from edgetl.measure.average_precision import mean_average_precision
from edgetl.measure.matching import match
from edgetl.stages.build_engine import planned_deployments
from edgetl.stages.detect import export, search
from edgetl.stages.detect.postprocessing import with_postprocessing
from edgetl.stages.detect.serving import service
from edgetl.stages.detect.validation import ValidationImages
from edgetl.stages.serving import load
from edgetl.stages.stage import Context, ProgressReporter

IMAGES = 12
HEADS = ("combined", "vehicles@cascade", "signs@cascade")


@pytest.fixture
def context(trained: Any, tmp_path: Path, listener: ProgressReporter) -> Context:
    """A run directory up to the search; pictures of noise, with what the float ``combined`` finds as objects."""
    folder, random = tmp_path / "run", np.random.default_rng(1)
    folder.mkdir()
    study = Study(
        name="signs",
        task="detect",
        data={"format": "synthetic"},
        groups=trained.bundle.groups,
        backbone={"name": "edgetl/nano", "image_size": (48, 32)},
        deployments=("combined", "specialised", "shared", "cascade"),
        precisions=("fp32", "int8"),
    )
    context = Context(study, tmp_path, RunDirectory(folder), listener)
    first = GraphSpec(stem="first", heads=("combined",))
    session = Session(with_postprocessing(trained.network, first, trained.bundle, study.detection.nms))
    images = []
    for number in range(IMAGES):
        pixels = random.integers(0, 255, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (found,) = session.run({"images": to_input(pixels[None])})["combined"]
        boxes = [box(trained.bundle.labels, row.tolist()) for row in found if row[4] > 0]
        sha256 = sha256_file(folder / f"{number}.png")
        images.append(BoxedImage(path=f"{number}.png", sha256=sha256, width=48, height=32, boxes=tuple(boxes)))
    trained.write(folder, images, {name: [np.empty((0, 6), np.float32)] * IMAGES for name in HEADS})
    search.work(context)
    return context


def box(labels: tuple[str, ...], row: list[float]) -> Box:
    return Box(label=labels[int(row[5])], x1=row[0], y1=row[1], x2=row[2], y2=row[3])


def guarded(context: Context, budget: float) -> Context:
    study = context.study.model_copy(update={"accuracy_control": AccuracyControl(max_accuracy_drop=budget)})
    return replace(context, study=study)


@pytest.mark.slow
def test_deployments_are_judged_by_what_their_engines_find(trained: Any, context: Context, tmp_path: Path) -> None:
    context = guarded(context, 1.0)
    export.work(context)
    index = read_json(context.run.index, BoxIndex)
    guards = read_json(context.run.accuracy_control, StudyAccuracyControl).formats
    assert set(guards) == {"tensorrt", "onnxruntime"}
    guard, shortlist = guards["onnxruntime"], read_json(context.run.shortlist, Shortlist)
    assert guard.fp32["combined"].value > 0.5
    assert {"combined", "cascade"} < set(guard.fp32)
    found = by_engines(trained, context, shortlist, index, tmp_path)
    for name, exact in guard.fp32.items():
        assert exact.value == pytest.approx(found[name], abs=1e-6)
    attempt = guard.attempts[guard.chosen]
    drops = [exact.value - attempt.accuracy.value for exact in guard.fp32.values()]
    assert any(drop == pytest.approx(attempt.drop) for drop in drops)
    assert attempt.standard_error > 0.0, "INT8 finds other boxes here and there"


def by_engines(trained: Any, context: Context, shortlist: Shortlist, index: BoxIndex, folder: Path) -> dict[str, float]:
    """mAP@0.5 of every deployment, from engines of the float graphs that were written."""
    engines = {spec: folder / f"{spec.stem}.engine" for spec in shortlist.graphs}
    for spec, path in engines.items():
        graph = context.run.graphs / spec.file("fp32", "onnxruntime")
        build_engine(get_runtime("onnxruntime"), graph, path, BuildOptions())
    wanted = {one.name: (one, [engines[spec] for spec in one.graphs]) for one in shortlist.deployments}
    images = to_input(np.stack([np.asarray(Image.open(context.run.path / image.path)) for image in index.val]))
    here, labels = ValidationImages(index.val, trained.bundle.preprocessing), trained.bundle.labels
    values = {}
    for name, loaded in load(wanted, RunOptions(threads=1)).items():
        boxes = here.on_images(service(context).predictor(wanted[name][0], loaded)(images))
        values[name] = mean_average_precision(match(index.val, boxes, labels), {}).overall.ap50.value
    return values


@pytest.mark.slow
def test_what_misses_the_budget_is_not_written_and_says_so(context: Context) -> None:
    context = guarded(context, 0.0)
    written = export.work(context)
    guards = read_json(context.run.accuracy_control, StudyAccuracyControl).formats
    for target, guard in guards.items():
        assert "INT8 loses more than 0.00% of mAP@0.5 on 12 images" in (guard.why_not_met or ""), target
    assert not any(".int8." in path.name for path in written)
    reasons = {one.precision: one.unsupported for one in planned_deployments(context)}
    assert reasons == {"fp32": None, "int8": guards["onnxruntime"].why_not_met}
