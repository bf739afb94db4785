from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torchvision.ops import batched_nms

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.artifacts.predictions import DetectionOutput, NmsImplementation
from edgetl.config import CalibrationRecipe, NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.detection_postprocessing import RawHead, with_detections
from edgetl.graph.extract import extract
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.metadata import detecting_outputs, labels_of
from edgetl.graph.parity import Session, run
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

Array = NDArray[np.float32]

WIDTH, HEIGHT = 48, 32
STRIDES = (8, 16)
LABELS = ("car", "bus", "stop")
INPUT = Preprocessing(width=WIDTH, height=HEIGHT, fit="letterbox")
ANCHORS = (((6.0, 5.0), (10.0, 14.0)), ((20.0, 18.0), (40.0, 30.0)))


def scales(**how: Any) -> tuple[YoloScale, ...]:
    return tuple(YoloScale(anchors=anchors, **how) for anchors in ANCHORS)


def head(name: str = "combined", **how: Any) -> RawHead:
    return RawHead(name, LABELS, scales(**how), tuple(f"{name}/{number}" for number in range(len(STRIDES))))


def shape(stride: int, labels: int = len(LABELS)) -> tuple[int, int, int]:
    return 2 * (5 + labels), HEIGHT // stride, WIDTH // stride


def raw_graph(name: str = "combined") -> onnx.ModelProto:
    """What comes in is what a network would give."""
    names = [f"{name}/{number}" for number in range(len(STRIDES))]
    shapes = [("N", *shape(stride)) for stride in STRIDES]
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"in/{raw}"], [raw]) for raw in names],
        "raw",
        [helper.make_tensor_value_info(f"in/{n}", TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def network(*names: str, seed: int = 0, batch: int | str = "N") -> onnx.ModelProto:
    """Images to a shared layer, and from there to the raw outputs of every head."""
    random = np.random.default_rng(seed)
    weights = {"stem": random.normal(0.0, 0.5, (8, 3, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["images", "stem"], ["stem/conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem/conv"], ["stem/relu"]),
    ]
    outputs = []
    for raw, stride in ((f"{name}/{number}", stride) for name in names for number, stride in enumerate(STRIDES)):
        channels, *sizes = shape(stride)
        weights[f"{raw}/weight"] = random.normal(0.0, 1.5 / stride, (channels, 8, stride, stride))
        nodes.append(helper.make_node("Conv", ["stem/relu", f"{raw}/weight"], [raw], strides=[stride, stride]))
        outputs.append(helper.make_tensor_value_info(raw, TensorProto.FLOAT, [batch, channels, *sizes]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, HEIGHT, WIDTH])
    constants = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "network", [images], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


IMAGES = np.random.default_rng(7).random((3, 3, HEIGHT, WIDTH), dtype=np.float32)


@cache
def session(form: NmsImplementation, suppression: NmsSettings, **how: Any) -> Session:
    model = with_detections(raw_graph(), [head(**how)], INPUT, suppression, form)
    onnx.checker.check_model(model, full_check=True)
    return Session(model)


def detect(raws: list[Array], form: NmsImplementation, suppression: NmsSettings, **how: Any) -> dict[str, Array]:
    feeds = {f"in/combined/{number}": raw for number, raw in enumerate(raws)}
    return session(form, suppression, **how).run(feeds)


def random_raws(batch: int = 2, seed: int = 0, spread: float = 1.5) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.normal(0.0, spread, (batch, *shape(stride))).astype(np.float32) for stride in STRIDES]


# --- what a raw output says -------------------------------------------------------------------------------------------


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def darknet(raw: Array, scale: YoloScale) -> Iterator[tuple[list[float], list[float]]]:
    """Box and scores of every anchor and cell of one image, value by value as Darknet's C sources read them.

    ``get_yolo_box``, ``get_region_box`` and ``fill_network_boxes`` in AlexeyAB's fork; corners in pixels.
    """
    _, height, width = raw.shape
    values = raw.reshape(len(scale.anchors), -1, height, width).astype(np.float64)
    for anchor, row, column in np.ndindex(len(scale.anchors), height, width):
        x, y, w, h, objectness, *classes = values[anchor, :, row, column]
        anchor_w, anchor_h = scale.anchors[anchor]
        if scale.activated:
            w, h = 4 * w * w * anchor_w, 4 * h * h * anchor_h
        else:
            x, y, objectness = sigmoid(x), sigmoid(y), sigmoid(objectness)
            w, h = math.exp(w) * anchor_w, math.exp(h) * anchor_h
            powers = [math.exp(one) for one in classes]
            classes = [p / sum(powers) for p in powers] if scale.softmax else [sigmoid(one) for one in classes]
        x = (column + x * scale.scale_xy - 0.5 * (scale.scale_xy - 1)) / width * WIDTH
        y = (row + y * scale.scale_xy - 0.5 * (scale.scale_xy - 1)) / height * HEIGHT
        yield [x - w / 2, y - h / 2, x + w / 2, y + h / 2], [objectness * one for one in classes]


@pytest.mark.parametrize(
    "how",
    [{}, {"scale_xy": 1.2}, {"scale_xy": 2.0, "activated": True}, {"softmax": True}],
    ids=["YOLOv3", "YOLOv4", "new_coords", "region"],
)
def test_raw_outputs_are_read_as_darknet_reads_them(how: dict[str, Any]) -> None:
    raws = random_raws()
    if how.get("activated"):
        raws = [1 / (1 + np.exp(-raw)) for raw in raws]
    found = detect(raws, "none", NmsSettings(), **how)
    assert list(found) == ["combined/boxes", "combined/scores"]
    for image in range(2):
        boxes, scores = zip(
            *(one for raw, scale in zip(raws, scales(**how), strict=True) for one in darknet(raw[image], scale)),
            strict=True,
        )
        np.testing.assert_allclose(found["combined/boxes"][image], boxes, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found["combined/scores"][image], scores, rtol=1e-5, atol=1e-6)


def test_values_that_overflow_give_finite_boxes_and_spoil_no_other() -> None:
    raws = random_raws()
    spoilt = [raw.copy() for raw in raws]
    spoilt[0][0, 2, 0, 0] = 1e30
    everything = [detect(values, "none", NmsSettings())["combined/boxes"] for values in (raws, spoilt)]
    assert np.isfinite(everything[1]).all()
    differ = np.argwhere((everything[0] != everything[1]).any(axis=2))
    assert differ.tolist() == [[0, 0]]
    for form in ("operator", "loop"):
        assert np.isfinite(detect(spoilt, form, NmsSettings())["combined"]).all()


@pytest.mark.parametrize("form", ["operator", "loop"])
def test_a_score_that_is_no_number_is_no_detection(form: NmsImplementation) -> None:
    raws = random_raws()
    raws[0][1, 4] = np.nan  # objectness of the first anchor everywhere
    found = detect(raws, form, NmsSettings())["combined"]
    assert np.isfinite(found).all() and (found[1, :, 4] > 0).sum() > 10


# --- suppression ------------------------------------------------------------------------------------------------------


def by_torchvision(raws: list[Array], suppression: NmsSettings, **how: Any) -> list[Array]:
    """The detections of each image from every box and score."""
    every = detect(raws, "none", suppression, **how)
    found = []
    for boxes, scores in zip(every["combined/boxes"], every["combined/scores"], strict=True):
        by_label = scores.transpose()
        label, box = np.nonzero((by_label >= np.float32(suppression.score_threshold)) & (by_label > 0))
        score = scores[box, label]
        best = np.argsort(-score, kind="stable")
        rows = np.column_stack([boxes[box[best]], score[best], label[best].astype(np.float32)])
        tensor = torch.from_numpy(rows)
        kept = batched_nms(tensor[:, :4], tensor[:, 4], tensor[:, 5], suppression.iou_threshold)
        found.append(rows[kept.numpy()[: suppression.max_detections]])
    return found


def padded(rows: Array, count: int) -> Array:
    nothing = np.tile(np.array([0, 0, 0, 0, 0, -1], np.float32), (count - len(rows), 1))
    return np.concatenate([rows, nothing])


SUPPRESSIONS = [
    NmsSettings(score_threshold=score, iou_threshold=overlap, max_detections=most)
    for score, overlap, most in ((0.01, 0.45, 100), (0.25, 0.5, 8), (0.0, 0.25, 300), (0.5, 1.0, 40))
]


@st.composite
def coarse_raws(draw: st.DrawFn) -> list[Array]:
    """Activated outputs of few values each, so that scores tie, boxes coincide, and all arithmetic on them is exact."""
    batch = draw(st.integers(1, 2))
    raws = []
    for stride in STRIDES:
        channels, height, width = shape(stride)
        steps = draw(arrays(np.int8, (batch, channels, height, width), elements=st.integers(0, 4)))
        raws.append(steps.astype(np.float32) / 4)
    return raws


@settings(max_examples=30)
@given(coarse_raws(), st.sampled_from(SUPPRESSIONS))
def test_both_forms_keep_what_torchvision_keeps_in_its_order(raws: list[Array], suppression: NmsSettings) -> None:
    expected = by_torchvision(raws, suppression, activated=True)
    for form in ("operator", "loop"):
        found = detect(raws, form, suppression, activated=True)["combined"]
        assert found.shape == (len(raws[0]), suppression.max_detections, 6)
        for image, rows in zip(found, expected, strict=True):
            np.testing.assert_array_equal(image, padded(rows, suppression.max_detections))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 3), st.sampled_from(SUPPRESSIONS), st.floats(0.2, 4.0))
def test_the_forms_are_equal_bit_for_bit(seed: int, batch: int, suppression: NmsSettings, spread: float) -> None:
    raws = random_raws(batch, seed, spread)
    by_operator, by_loop = (detect(raws, form, suppression)["combined"] for form in ("operator", "loop"))
    np.testing.assert_array_equal(by_operator, by_loop)


def test_an_image_gives_the_same_alone_and_among_others() -> None:
    raws = random_raws(3)
    for form in ("operator", "loop"):
        together = detect(raws, form, NmsSettings())["combined"]
        for image in range(3):
            alone = detect([raw[image : image + 1] for raw in raws], form, NmsSettings())["combined"]
            np.testing.assert_array_equal(alone[0], together[image])


@pytest.mark.parametrize("form", ["operator", "loop"])
def test_nothing_found_is_zeros_without_a_label(form: NmsImplementation) -> None:
    raws = [np.full((2, *shape(stride)), -20.0, np.float32) for stride in STRIDES]
    found = detect(raws, form, NmsSettings())["combined"]
    np.testing.assert_array_equal(found, np.stack([padded(np.zeros((0, 6), np.float32), 100)] * 2))


@pytest.mark.parametrize("form", ["operator", "loop"])
@pytest.mark.parametrize(("score", "count"), [(0.25, 1), (np.nextafter(np.float32(0.25), np.float32(1)), 0)])
def test_a_score_of_just_the_least_is_a_detection(form: NmsImplementation, score: float, count: int) -> None:
    raws = [np.zeros((1, *shape(stride)), np.float32) for stride in STRIDES]
    raws[1][0, 4:6, 1, 1] = 0.5
    found = detect(raws, form, NmsSettings(score_threshold=float(score)), activated=True)["combined"]
    assert (found[..., 4] > 0).sum() == count


@pytest.mark.parametrize("form", ["operator", "loop"])
def test_what_is_kept_of_many_candidates_is_what_is_kept_of_all(form: NmsImplementation) -> None:
    """3600 pairs of box and label reach the least score: suppression looks at the best thousand."""
    sizes, labels = (30, 20), LABELS
    scale = YoloScale(anchors=((16.0, 16.0), (60.0, 40.0)))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["in"], ["raw"])],
        "raw",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, ["N", 16, *sizes])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", 16, *sizes])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raws = np.random.default_rng(0).normal(0.0, 0.7, (1, 16, *sizes)).astype(np.float32)
    large = Preprocessing(width=320, height=480, fit="stretch")
    one = RawHead("combined", labels, (scale,), ("raw",))
    for most, exact in ((100, True), (1000, False)):
        suppression = NmsSettings(max_detections=most)
        every, found = (
            Session(with_detections(model, [one], large, suppression, kind)).run({"in": raws})
            for kind in ("none", form)
        )
        rows = found["combined"][0][found["combined"][0, :, 4] > 0]
        assert (every["combined/scores"] >= 0.01).all()
        label, box = np.nonzero(every["combined/scores"][0].T)
        score = every["combined/scores"][0][box, label]
        boxes = every["combined/boxes"][0][box]
        kept = np.concatenate([_by_label(boxes, score, label, number) for number in range(len(labels))])
        kept = kept[np.argsort(-score[kept], kind="stable")][: len(rows)]
        np.testing.assert_array_equal(rows, np.column_stack([boxes[kept], score[kept], label[kept]]))
        assert (len(rows) == most) == exact


def _by_label(boxes: Array, score: Array, label: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """torchvision's on the boxes of one label: with several it moves them apart, and so rounds them."""
    own = np.flatnonzero(label == number)
    kept = batched_nms(torch.from_numpy(boxes[own]), torch.from_numpy(score[own]), torch.zeros(len(own)), 0.45)
    return np.asarray(own[kept.numpy()])


# --- in a graph -------------------------------------------------------------------------------------------------------


def test_detections_stand_in_the_place_of_raw_outputs() -> None:
    model = network("vehicles", "signs")
    before = model.SerializeToString(deterministic=True)
    found = with_detections(model, [head("vehicles"), head("signs")], INPUT, NmsSettings(), keep=["vehicles/1"])
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(found, full_check=True)
    shapes = {
        output.name: [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
        for output in found.graph.output
    }
    assert shapes == {"vehicles/1": ["N", 16, 2, 3], "vehicles": ["N", 100, 6], "signs": ["N", 100, 6]}
    raws = run(model, IMAGES)
    outputs = run(found, IMAGES)
    for name in ("vehicles", "signs"):
        expected = detect([raws[f"{name}/{number}"] for number in (0, 1)], "operator", NmsSettings())["combined"]
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", ["operator", "loop", "none"])
def test_a_fixed_batch_stays_fixed(form: NmsImplementation) -> None:
    fixed = with_detections(network("a", batch=3), [head("a")], INPUT, NmsSettings(), form)
    onnx.checker.check_model(fixed, full_check=True)
    assert fixed.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 3
    dynamic = run(with_detections(network("a"), [head("a")], INPUT, NmsSettings(), form), IMAGES)
    for name, value in run(fixed, IMAGES).items():
        np.testing.assert_array_equal(value, dynamic[name])


def notes(model: onnx.ModelProto) -> dict[str, Any]:
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


def test_labels_suppression_and_preprocessing_travel_in_the_file() -> None:
    suppression = NmsSettings(score_threshold=0.2)
    found = with_detections(network("größe"), [head("größe")], INPUT, suppression, "loop")
    assert notes(found) == {
        "edgetl.labels": {"größe": list(LABELS)},
        "edgetl.detections": {
            "größe": {
                "implementation": "loop",
                "nms": {"score_threshold": 0.2, "iou_threshold": 0.45, "max_detections": 100},
            }
        },
        "edgetl.input": INPUT.model_dump(),
    }
    assert labels_of(found) == {"größe": LABELS}
    assert detecting_outputs(found) == {"größe": DetectionOutput(implementation="loop", nms=suppression)}
    bare = with_detections(network("a"), [head("a")], INPUT, suppression, "none")
    assert notes(bare)["edgetl.labels"] == {"a/scores": list(LABELS)}
    assert set(detecting_outputs(bare)) == {"a/boxes", "a/scores"}


def test_a_part_and_a_fused_graph_keep_what_is_said_of_their_outputs() -> None:
    both = with_detections(network("a", "b"), [head("a"), head("b")], INPUT, NmsSettings())
    part = extract(both, ["b"])
    assert set(labels_of(part)) == set(detecting_outputs(part)) == {"b"}
    np.testing.assert_array_equal(run(part, IMAGES)["b"], run(both, IMAGES)["b"])
    loops = with_detections(network("a", "b"), [head("a"), head("b")], INPUT, NmsSettings(), "loop")
    fused = fuse({"one": both, "two": extract(loops, ["a"])}).model
    assert {name: one.implementation for name, one in detecting_outputs(fused).items()} == {
        "one/a": "operator",
        "one/b": "operator",
        "two/a": "loop",
    }
    outputs = run(fused, IMAGES)
    np.testing.assert_array_equal(outputs["one/a"], outputs["two/a"])
    assert [node.op_type for node in fused.graph.node].count("Conv") == 5


def prepared(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """In FP16, or in INT8 as a runtime has it."""
    if precision == "fp16":
        return to_fp16(model)
    record = tuple(CalibrationImage(path=str(number), sha256="") for number in range(len(IMAGES)))
    table = calibrate(model, [IMAGES], CalibrationRecipe(), record)
    return quantize(model, table, "tensorrt" if precision == "tensorrt" else "onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["operator", "loop", "none"])
@pytest.mark.parametrize("precision", ["fp16", "tensorrt", "onnxruntime"])
def test_reading_raw_outputs_stays_in_float_whichever_is_first(form: NmsImplementation, precision: str) -> None:
    """To prepare a detector gives what a prepared network with detections on it gives."""
    suppression = NmsSettings(score_threshold=0.05)
    first = prepared(with_detections(network("a"), [head("a")], INPUT, suppression, form), precision)
    last = with_detections(prepared(network("a"), precision), [head("a")], INPUT, suppression, form)
    plain = with_detections(network("a"), [head("a")], INPUT, suppression, form)
    found, expected, float32 = (run(model, IMAGES) for model in (first, last, plain))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert not np.array_equal(float32[name], value), "it is prepared"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raws": ("a/0", "b/7")}, "has no tensor 'b/7'"),
        ({"raws": ("a/0",)}, "1 raw outputs and 2 scales"),
        ({"classes": ("car",)}, "raw output 'a/0' is N x 16 x 4 x 6, expected N x 12 x H x W with fixed H and W for 2"),
        ({"scales": (scales()[0], scales(softmax=True)[1])}, "read in different ways"),
    ],
)
def test_a_head_that_does_not_fit_its_graph_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgetlError, match=message):
        with_detections(network("a"), [replace(head("a"), **change)], INPUT, NmsSettings())


def test_a_raw_output_of_open_size_is_refused() -> None:
    model = network("a")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(EdgetlError, match=r"is N x 16 x \? x 6, expected N x 16 x H x W with fixed H and W"):
        with_detections(model, [head("a")], INPUT, NmsSettings())


@pytest.mark.parametrize("entry", ["[]", '{"a": {"form": "magic"}}', '{"a": 7}', "{"])
def test_a_damaged_entry_is_one_line(entry: str) -> None:
    model = with_detections(network("a"), [head("a")], INPUT, NmsSettings())
    helper.set_model_props(model, {"edgetl.detections": entry})
    with pytest.raises(EdgetlError, match=r"entry edgetl\.detections of the graph is damaged; export the graph again"):
        detecting_outputs(model)
