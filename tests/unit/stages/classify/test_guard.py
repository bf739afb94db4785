"""A study's INT8 under its guard: one mix for all deployments, judged by what each of them predicts on validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

pytest.importorskip("torch", reason="the extra train is not installed")

from edgetl.artifacts.accuracy_control_record import StudyAccuracyControl
from edgetl.artifacts.data_index import DataIndex, Sample
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import read_json, sha256_file
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.config import Study
from edgetl.data.stream import to_input
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime
from edgetl.graph.parity import run as run_graph
from edgetl.stages.build_engine import planned_deployments
from edgetl.stages.classify import export, search
from edgetl.stages.classify.serving import service
from edgetl.stages.precisions import TARGETS, judged_specs
from edgetl.stages.serving import load
from edgetl.stages.stage import Context, ProgressReporter

GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")
IMAGES = 80
EVERY = ("combined", "specialised", "shared", "branched", "cascade")

Prepared = Callable[..., Any]


def skewed(trained: Any) -> Any:
    """The same heads on networks whose first layer makes a channel that hardly counts reach 4000 times as far.

    Clip in place of Relu keeps channels from being equalised across layers.
    """
    trunk = onnx.ModelProto()
    trunk.CopyFrom(trained.trunk)
    trunk.graph.initializer.append(numpy_helper.from_array(np.float32(0), "least"))
    for node in trunk.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.append("least")
    for tensor in trunk.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if value.shape == (4, 3, 3, 3):
            value[0] *= np.float32(4000.0)
        elif value.shape == (6, 4, 3, 3):
            value[:, 0] /= np.float32(4000.0)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    kept = tuple(head for head in trained.bundle.heads if not head.truncated)  # those read the uneven channels
    return replace(trained, trunk=trunk, bundle=trained.bundle.model_copy(update={"heads": kept}))


@pytest.fixture
def study(trained: Any, tmp_path: Path, listener: ProgressReporter) -> Prepared:
    """The orders of a study's export. INT8 breaks in the second of two layers; in float ``combined`` never errs."""

    def study(budget: float) -> tuple[Context, Any, DataIndex, Any]:
        settings = Study(
            name="signs",
            data={"format": "digits"},
            groups=GROUPS,
            backbone={"name": "edgetl/nano", "image_size": 16, "cut": "layer1"},
            deployments=EVERY,
            precisions=("fp32", "int8"),
            calibration="mse",
            accuracy_control={"max_accuracy_drop": budget},
        )
        run, bundle, random = RunDirectory(tmp_path / "run"), skewed(trained), np.random.default_rng(0)
        samples, whole = [], bundle.whole()
        for number in range(IMAGES):
            path, pixels = tmp_path / f"{number}.png", random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            label = LABELS[int(run_graph(whole, to_input(pixels[None]))["combined"].argmax())]
            samples.append(Sample(path=path.name, label=label, sha256=sha256_file(path)))
        said = {one.name: random.dirichlet(np.ones(len(one.classes)), IMAGES) for one in bundle.bundle.heads}
        bundle.write(run.bundle, {k: v.astype(np.float32) for k, v in said.items()}, [s.label for s in samples])
        context = Context(settings, tmp_path, run, listener)
        search.work(context)
        index = DataIndex(generated=False, labels=LABELS, train=samples, val=samples, test=samples)
        return context, export.preparing(context, index, tmp_path, bundle.bundle), index, bundle

    return study


def images_of(index: DataIndex, folder: Path) -> Any:
    return to_input(np.stack([np.asarray(Image.open(folder / sample.path)) for sample in index.val]))


def in_int8(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Shapes of the weights that are INT8."""
    return [tuple(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]


@pytest.mark.slow
def test_what_breaks_in_int8_returns_to_float_in_all_deployments(study: Prepared) -> None:
    context, order, index, _ = study(0.06)
    precisions, notes = order.prepare(index.train)
    assert context.run.accuracy_control in notes
    guards = read_json(context.run.accuracy_control, StudyAccuracyControl).formats
    guard = guards["tensorrt"]
    assert (set(guards), guard.why_not_met, guard.excluded_precision) == (set(TARGETS), None, "fp16")
    assert guard.attempts[0].pessimistic_drop > 0.06 >= guard.attempts[guard.chosen].pessimistic_drop
    (returned,) = (layer for layer in guard.layers if layer.excluded)
    assert returned.snr_db == min(layer.snr_db for layer in guard.layers)
    assert len(returned.layers) == guard.attempts[guard.chosen].excluded == 3, (
        "what every branch has on the first layer"
    )
    for spec in order.graphs.specs:
        model = precisions.by_qdq_format(spec, "int8")["tensorrt"]
        onnx.checker.check_model(model)
        assert set(in_int8(model)) <= {(4, 3, 3, 3)}, spec.stem
    # ONNX Runtime's spelling would take the first layer along, and of INT8 nothing would be left.
    assert "the nearest of 2 attempts" in guards["onnxruntime"].why_not_met
    kinds = {name.partition("@")[0] for name in guards["tensorrt"].fp32}
    assert kinds == {"combined", "specialised", "cascade"}, "shared ones say what specialised ones say"


@pytest.mark.slow
def test_the_guard_judges_a_deployment_by_what_its_engines_predict(study: Prepared, tmp_path: Path) -> None:
    context, order, index, _ = study(1.0)
    precisions, _ = order.prepare(index.train)
    guard = read_json(context.run.accuracy_control, StudyAccuracyControl).formats["onnxruntime"]
    shortlist, images = read_json(context.run.shortlist, Shortlist), images_of(index, tmp_path)
    engines = {spec: tmp_path / f"{number}.engine" for number, spec in enumerate(order.graphs.specs)}
    for spec, path in engines.items():
        onnx.save(precisions.by_qdq_format(spec, "fp32")["onnxruntime"], tmp_path / "graph.onnx")
        build_engine(get_runtime("onnxruntime"), tmp_path / "graph.onnx", path, BuildOptions())
    wanted = {one.name: (one, [engines[spec] for spec in one.graphs]) for one in shortlist.deployments}
    truth = [LABELS.index(sample.label) for sample in index.val]
    assert {"cascade", "combined"} < set(guard.fp32)
    for name, loaded in load(wanted, RunOptions(threads=1)).items():
        if name in guard.fp32:
            predict = service(context).predictor(wanted[name][0], loaded)
            assert guard.fp32[name].value == pytest.approx(float((predict(images).argmax(axis=1) == truth).mean()))


@pytest.mark.slow
def test_a_budget_that_is_missed_makes_int8_a_row_that_says_how_far_it_got(study: Prepared) -> None:
    context, order, index, _ = study(0.0)
    older = context.run.graphs / order.graphs.specs[0].file("int8", "onnxruntime")
    older.parent.mkdir(parents=True)
    older.touch()
    precisions, _ = order.prepare(index.train)
    assert precisions.by_qdq_format(order.graphs.specs[0], "int8") == {}
    assert not older.exists(), "a graph of an earlier export would be taken for this one's"
    rows = planned_deployments(context)
    assert {one.precision for one in rows if one.unsupported is None} == {"fp32"}
    assert all(
        "INT8 loses more than 0.00% of accuracy on 80 images: the nearest of" in one.unsupported
        for one in rows
        if one.precision == "int8"
    )


def test_heads_on_one_trunk_are_judged_in_one_graph_and_a_cascade_in_its_own(study: Prepared) -> None:
    context, _, _, trained = study(1.0)
    places = {head.name: head.features for head in trained.bundle.heads}
    shortlist = read_json(context.run.shortlist, Shortlist)
    specs = judged_specs(shortlist, places)
    covered = {name for spec in specs for name in spec.heads}
    assert covered == {name for one in shortlist.deployments for name in one.heads}
    assert specs[-3:] == tuple(spec for one in shortlist.deployments if one.kind == "cascade" for spec in one.graphs)
    top = GraphSpec(stem="judged", heads=("combined", "vehicles", "signs"))
    assert any(set(spec.heads) == set(top.heads) for spec in specs[:-3])
    assert len(specs) < len(shortlist.graphs)
