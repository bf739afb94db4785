"""A plain detecting file in INT8 within a budget, judged by boxes, and a user's mistakes on the way there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from edgetl.artifacts.files import read_json
from edgetl.artifacts.prepared import PreparedRecord, record_path
from edgetl.config import NmsSettings
from edgetl.data.stream import to_input
from edgetl.errors import EdgetlError, NotMetError
from edgetl.graph.detection_postprocessing import with_detections
from edgetl.graph.extract import extract
from edgetl.graph.metadata import LABELS, detecting_outputs
from edgetl.graph.model import load_model, save_model
from edgetl.graph.parity import run
from edgetl.graph.quantize import qdq_format
from edgetl.stages.detect.evaluator import evaluator_of_boxes
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.prepare_file import PrepareRequest, prepare_file

IMAGES = 12
WIDTH, HEIGHT = 48, 32
Save = Callable[..., Path]


@pytest.fixture
def saved(trained: Any, tmp_path: Path) -> Save:
    """A file with detections of some heads, which know a label each or more."""

    def save(*heads: str, form: str = "operator") -> Path:
        named = [trained.raw_head(name) for name in heads]
        graph = extract(trained.network, [raw for head in named for raw in head.raws], ["images"])
        save_model(
            with_detections(graph, named, trained.bundle.preprocessing, NmsSettings(), form), tmp_path / "m.onnx"
        )
        return tmp_path / "m.onnx"

    return save


@pytest.fixture
def annotated(saved: Save, trained: Any, tmp_path: Path) -> Path:
    """COCO annotations of pictures of noise: every other box is one that the float ``combined`` finds."""
    random, labels, images, boxes = np.random.default_rng(1), trained.bundle.labels, [], []
    graph = saved("combined")
    for number in range(IMAGES):
        pixels = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        (found,) = run(graph, to_input(pixels[None]))["combined"]
        for left, top, right, bottom, _, label in found[found[:, 4] > 0].astype(float)[::2]:
            box = {"image_id": number, "category_id": int(label), "bbox": [left, top, right - left, bottom - top]}
            boxes.append(box)
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_int8_within_a_budget_is_judged_by_boxes_and_the_record_says_so(
    target: Any, saved: Save, annotated: Path, tmp_path: Path, listener: Any
) -> None:
    graph, output = saved("combined"), tmp_path / "p.onnx"
    wanted = PrepareRequest("int8", target, tmp_path / "photos", "default", 0.9, annotated)
    prepare_file(graph, output, wanted, listener)
    guard = read_json(record_path(output), PreparedRecord).accuracy_control
    assert guard is not None and (guard.metric, guard.images) == ("mAP@0.5", IMAGES)
    assert 0.3 < guard.fp32["combined"].value < 1.0
    assert guard.attempts[guard.chosen].standard_error > 0.0, "INT8 finds other boxes here and there"
    prepared = load_model(output)
    assert qdq_format(prepared) == target
    assert detecting_outputs(prepared) == detecting_outputs(load_model(graph))
    assert any(line.startswith("measuring mAP@0.5 on 12 images") for line in listener.lines)


@pytest.mark.slow
def test_the_written_file_is_what_was_judged(saved: Save, annotated: Path, tmp_path: Path, listener: Any) -> None:
    graph, output = saved("combined"), tmp_path / "p.onnx"
    wanted = PrepareRequest("int8", "onnxruntime", tmp_path / "photos", "default", 0.9, annotated)
    prepare_file(graph, output, wanted, listener)
    guard = read_json(record_path(output), PreparedRecord).accuracy_control
    assert guard is not None
    written = load_model(output)
    again = evaluator_of_boxes(written, annotated, input_preprocessing(written), listener)
    assert again.fp32["combined"] == guard.attempts[guard.chosen].accuracy


def test_every_output_is_judged_by_its_own_labels(saved: Save, annotated: Path, listener: Any) -> None:
    model = load_model(saved("vehicles", "signs"))
    exact = evaluator_of_boxes(model, annotated, input_preprocessing(model), listener).fp32
    assert set(exact) == {"vehicles", "signs"}
    alone = load_model(saved("combined"))
    assert (
        evaluator_of_boxes(alone, annotated, input_preprocessing(alone), listener).drops([alone])["combined"].drop == 0
    )


def test_the_form_of_suppression_changes_nothing(saved: Save, annotated: Path, listener: Any) -> None:
    loop = load_model(saved("combined", form="loop"))
    operator = load_model(saved("combined"))
    preprocessing = input_preprocessing(loop)
    found = [evaluator_of_boxes(one, annotated, preprocessing, listener).fp32 for one in (loop, operator)]
    assert found[0] == found[1]


def test_a_budget_that_cannot_be_met_is_missed_in_map(
    saved: Save, annotated: Path, tmp_path: Path, listener: Any
) -> None:
    wanted = PrepareRequest("int8", "onnxruntime", tmp_path / "photos", "default", 0.0, annotated)
    with pytest.raises(NotMetError, match=r"more than 0.00% of mAP@0.5 on 12 images: the nearest of"):
        prepare_file(saved("combined"), tmp_path / "p.onnx", wanted, listener)
    assert not (tmp_path / "p.onnx").exists()


def test_mistakes_are_told_before_the_work(saved: Save, annotated: Path, tmp_path: Path, listener: Any) -> None:
    def refused(eval_images: Path, graph: Path) -> str:
        wanted = PrepareRequest("int8", "tensorrt", tmp_path / "photos", "default", 0.1, eval_images)
        listener.lines.clear()
        with pytest.raises(EdgetlError) as caught:
            prepare_file(graph, tmp_path / "p.onnx", wanted, listener)
        assert not any("calibrating" in line for line in listener.lines)
        return str(caught.value)

    assert "a detector is evaluated on boxes; give a COCO .json file" in refused(tmp_path / "photos", saved("combined"))
    graph = saved("combined", form="none")
    assert "leaves suppression to others (output 'combined/boxes'); export it with" in refused(annotated, graph)
    graph = saved("vehicles")
    assert "boxes of 'left', 'stop', 'yield', which the graph does not know" in refused(annotated, graph)
    content = json.loads(annotated.read_text())
    annotated.write_text(json.dumps(content | {"annotations": []}))
    assert "have no object that output 'combined' could find" in refused(annotated, saved("combined"))
    shutil.rmtree(tmp_path / "photos")
    assert "has no usable image; the first of 12 faults: boxes.json: image 0" in refused(annotated, saved("combined"))


def test_faults_of_annotations_are_told_by_kind(saved: Save, annotated: Path, tmp_path: Path, listener: Any) -> None:
    (tmp_path / "photos" / "0.png").unlink()
    (tmp_path / "photos" / "1.png").write_bytes(b"no image")
    model = load_model(saved("combined"))
    judge = evaluator_of_boxes(model, annotated, input_preprocessing(model), listener)
    assert judge.images == IMAGES - 2
    assert any(line.startswith("missing image, left out: 1 (boxes.json: image 0") for line in listener.lines)
    assert any(line.startswith("left out photos/1.png: ") for line in listener.lines)


@pytest.mark.slow
def test_a_graph_that_classifies_too_is_judged_by_its_images_labels(
    saved: Save, annotated: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, listener: Any
) -> None:
    by_kind = tmp_path_factory.mktemp("kinds")
    model = load_model(saved("combined"))
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["trunk/relu"], ["pooled"]))
    model.graph.node.append(helper.make_node("Flatten", ["pooled"], ["kind"]))
    channels = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == "trunk/weight")
    model.graph.output.append(helper.make_tensor_value_info("kind", TensorProto.FLOAT, ["N", channels]))
    kinds = [f"kind {number}" for number in range(channels)]
    entry = next(entry for entry in model.metadata_props if entry.key == LABELS)
    entry.value = json.dumps(json.loads(entry.value) | {"kind": kinds})
    save_model(model, tmp_path / "both.onnx")
    for kind in kinds:
        shutil.copytree(tmp_path / "photos", by_kind / kind)
    for images, metric, output in ((annotated, "mAP@0.5", "combined"), (by_kind, "accuracy", "kind")):
        wanted = PrepareRequest("int8", "onnxruntime", tmp_path / "photos", "default", 0.9, images)
        prepare_file(tmp_path / "both.onnx", tmp_path / "p.onnx", wanted, listener)
        guard = read_json(record_path(tmp_path / "p.onnx"), PreparedRecord).accuracy_control
        assert guard is not None and (guard.metric, set(guard.fp32)) == (metric, {output})
