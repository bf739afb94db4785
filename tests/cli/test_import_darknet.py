"""Darknet's two files and a list of names become one ONNX file, as a user does it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from edgetl.artifacts.bundle import Preprocessing
from edgetl.config import NmsSettings
from edgetl.graph.metadata import detecting_outputs, labels_of
from edgetl.graph.parity import run
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import build
from tests.darknet_weights import write_weights

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Fault = Callable[[Done], str]

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material" / "darknet"

YOLO = """
[net]
channels=3
width=64
height=32
[convolutional]
filters=8
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky
[maxpool]
size=2
stride=2
[convolutional]
filters=14
size=1
stride=1
activation=linear
[yolo]
mask=0,1
anchors=8,8, 20,12
classes=2
num=2
scale_x_y=1.1
"""

CLASSIFIER = """
[net]
channels=3
width=32
height=32
[convolutional]
filters=3
size=3
stride=2
activation=leaky
[avgpool]
[softmax]
"""


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[object]]:
    """Arguments for a network with random weights and its names."""

    def files(cfg: str, *names: str) -> list[object]:
        (tmp_path / "n.cfg").write_text(cfg)
        (tmp_path / "n.names").write_text("\n".join(names) + "\n\n")
        torch.manual_seed(0)  # weights that OpenCV's threshold leaves most scores of
        write_weights(tmp_path / "n.weights", build(read_cfg(tmp_path / "n.cfg")))
        return [
            *("import-darknet", tmp_path / "n.cfg", "--weights", tmp_path / "n.weights"),
            *("--labels", tmp_path / "n.names", "-o", tmp_path / "n.onnx"),
        ]

    return files


def notes(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_a_detector_becomes_one_file_with_its_labels(
    call: Command, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    done = call(*files(YOLO, "car", "bus"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'n.onnx'}\n"
    model = onnx.load(tmp_path / "n.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert labels_of(model) == {"detections": ("car", "bus")}
    assert detecting_outputs(model)["detections"].nms == NmsSettings()
    preprocessing = Preprocessing.model_validate_json(notes(tmp_path / "n.onnx")["edgetl.input"])
    assert preprocessing == Preprocessing(width=64, height=32, fit="letterbox")
    found = run(model, np.zeros((2, 3, 32, 64), np.float32))
    assert {name: value.shape for name, value in found.items()} == {"detections": (2, 100, 6)}


def test_size_fit_form_and_suppression_can_be_chosen(
    call: Command, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    chosen = ["--score-threshold", 0.2, "--iou-threshold", 0.6, "--max-detections", 7]
    done = call(*files(YOLO, "car", "bus"), "--image-size", "96x48", "--fit", "stretch", "--nms", "loop", *chosen)
    assert done.returncode == 0, done.stderr
    model = onnx.load(tmp_path / "n.onnx")
    one = detecting_outputs(model)["detections"]
    assert (one.implementation, one.nms) == (
        "loop",
        NmsSettings(score_threshold=0.2, iou_threshold=0.6, max_detections=7),
    )
    preprocessing = Preprocessing.model_validate_json(notes(tmp_path / "n.onnx")["edgetl.input"])
    assert preprocessing == Preprocessing(width=96, height=48, fit="stretch")
    assert run(model, np.zeros((1, 3, 48, 96), np.float32))["detections"].shape == (1, 7, 6)
    assert call(*files(YOLO, "car", "bus"), "--nms", "none").returncode == 0
    shapes = {
        name: value.shape for name, value in run(tmp_path / "n.onnx", np.zeros((1, 3, 32, 64), np.float32)).items()
    }
    assert shapes == {"detections/boxes": (1, 256, 4), "detections/scores": (1, 256, 2)}


def test_a_classifier_is_one_file_with_labels(
    call: Command, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    """Names may repeat there, as in Darknet's list of ImageNet's."""
    done = call(*files(CLASSIFIER, "crane", "dog", "crane"))
    assert done.returncode == 0, done.stderr
    model = onnx.load(tmp_path / "n.onnx")
    assert labels_of(model) == {"probabilities": ("crane", "dog", "crane")}
    assert detecting_outputs(model) == {}
    assert Preprocessing.model_validate_json(notes(tmp_path / "n.onnx")["edgetl.input"]) == Preprocessing.square(32)
    found = run(model, np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32))["probabilities"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_what_does_not_belong_together_is_one_line(
    call: Command, fault: Fault, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    command = files(YOLO, "car", "bus", "stop")
    message = fault(call(*command))
    assert message == (
        f"{tmp_path / 'n.names'} has 3 names, {tmp_path / 'n.cfg'} has 2 classes; give the names that belong to it"
    )
    (tmp_path / "n.names").write_text("car\nbus\n")
    assert "give multiples of 4 as --image-size" in fault(call(*command, "--image-size", "66"))
    assert "--fit crop takes squares, not 64 x 32" in fault(call(*command, "--fit", "crop"))
    weights = (tmp_path / "n.weights").read_bytes()
    (tmp_path / "n.weights").write_bytes(weights[:-4])
    assert f"hold {len(weights) // 4 - 6} values, expected {len(weights) // 4 - 5}" in fault(call(*command))
    (tmp_path / "n.weights").unlink()
    assert f"weights {tmp_path / 'n.weights'} do not exist" in fault(call(*command))
    assert not (tmp_path / "n.onnx").exists()


def scenes(folder: Path, graph: Path, count: int = 8) -> Path:
    """Pictures of noise, and COCO annotations of every other box that a graph finds in them."""
    random, images, boxes = np.random.default_rng(0), [], []
    (folder / "val").mkdir()
    for number in range(count):
        pixels = random.integers(0, 255, (32, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "val" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png"})
        (found,) = run(graph, pixels.transpose(2, 0, 1)[None] / np.float32(255))["detections"]
        for left, top, right, bottom, _, label in found[found[:, 4] > 0][::2].tolist():
            bbox = [left, top, right - left, bottom - top]
            boxes.append({"image_id": number, "category_id": int(label), "bbox": bbox})
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def test_a_detector_is_built_in_int8_within_a_budget_judged_by_boxes(
    call: Command, fault: Fault, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    graph = tmp_path / "n.onnx"
    assert call(*files(YOLO, "car", "bus")).returncode == 0
    boxes = scenes(tmp_path, graph)
    int8 = ["--precision", "int8", "--calibration-images", tmp_path / "val", "--max-accuracy-drop", "0.9"]
    done = call("prepare", graph, *int8, "--eval-images", boxes, "-o", tmp_path / "i.onnx")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'i.onnx'}\n"), done.stderr
    assert f"measuring mAP@0.5 on 8 images of {boxes}; FP32 has: detections " in done.stderr
    record = json.loads((tmp_path / "i.onnx.json").read_text())
    assert (record["accuracy_control"]["metric"], record["accuracy_control"]["images"]) == ("mAP@0.5", 8)
    built = call("build-engine", graph, *int8, "--eval-images", boxes, "-o", tmp_path / "engine.onnx")
    assert built.returncode == 0, built.stderr
    assert json.loads((tmp_path / "engine.onnx.prepared.json").read_text())["accuracy_control"]["metric"] == "mAP@0.5"
    line = fault(call("prepare", graph, *int8, "--eval-images", tmp_path / "val", "-o", tmp_path / "j.onnx"))
    assert "a detector is evaluated on boxes; give a COCO .json file" in line
    assert not (tmp_path / "j.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "wide"], "'wide' is neither a side such as 416 nor WIDTHxHEIGHT"),
        (["--nms", "none", "--iou-threshold", 0.5], "--iou-threshold is for --nms operator or loop"),
        (["--max-detections", 5000], "5000 is not in the range 1<=x<=1000"),
    ],
)
def test_options_that_contradict_are_usage(
    options: list[object], message: str, call: Command, files: Callable[..., list[object]]
) -> None:
    done = call(*files(YOLO, "car", "bus"), *options)
    assert done.returncode == 2 and message in done.stderr


def test_a_network_needs_its_weights_and_names(call: Command, tmp_path: Path) -> None:
    done = call("import-darknet", tmp_path / "n.cfg", "-o", tmp_path / "n.onnx")
    assert done.returncode == 2 and "Missing option '--weights'" in done.stderr


def test_a_size_too_small_or_too_large_is_one_line(
    call: Command, fault: Fault, files: Callable[..., list[object]]
) -> None:
    for size in ("0", "40000"):
        assert "expected sides from 16 to 4096 pixels; give another --image-size" in fault(
            call(*files(YOLO, "car", "bus"), "--image-size", size)
        )


REGION = """
[region]
anchors=1.5,2, 3,0.5
classes=2
coords=4
num=2
softmax=1
"""


@pytest.mark.parametrize(
    "ending",
    [None, "scale_x_y=1.05\n", "scale_x_y=2.0\nnew_coords=1\n", REGION],
    ids=["YOLOv3", "YOLOv4", "Scaled-YOLOv4", "YOLOv2"],
)
def test_every_kind_of_ending_is_read_as_opencv_reads_it(
    ending: str | None, call: Command, files: Callable[..., list[object]], tmp_path: Path
) -> None:
    """Its reader, and its region layer, of which the rows are cell by cell, as shares of the image."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    cfg = YOLO.replace("scale_x_y=1.1\n", ending or "")
    if ending == REGION:
        cfg = YOLO.partition("[yolo]")[0] + REGION
    elif ending and "new_coords" in ending:
        cfg = cfg.replace("activation=linear", "activation=logistic")
    assert call(*files(cfg, "car", "bus"), "--nms", "none").returncode == 0
    image = np.random.default_rng(0).random((1, 3, 32, 64), dtype=np.float32)
    ours = run(tmp_path / "n.onnx", image)
    network = cv2.dnn.readNetFromDarknet(str(tmp_path / "n.cfg"), str(tmp_path / "n.weights"))
    network.setInput(image)
    rows = network.forward(network.getUnconnectedOutLayersNames())[0]
    rows = rows.reshape(-1, 2, rows.shape[-1]).swapaxes(0, 1).reshape(-1, rows.shape[-1])
    centre, sides = rows[:, :2] * (64, 32), rows[:, 2:4] * (64, 32)
    np.testing.assert_allclose(
        ours["detections/boxes"][0], np.concatenate([centre - sides / 2, centre + sides / 2], axis=1), atol=1e-3
    )
    told = rows[:, 5:] > 0  # what is below its threshold is zero
    assert told.mean() > 0.5
    np.testing.assert_allclose(ours["detections/scores"][0][told], rows[:, 5:][told], atol=1e-5)


# --- real networks ----------------------------------------------------------------------------------------------------


@pytest.mark.material
@pytest.mark.skipif(not MATERIAL.is_dir(), reason="the Darknet networks do not lie beside the project")
@pytest.mark.parametrize(
    ("folder", "name"),
    [("mobilenetv2-yolov3-nano-coco", "MobileNetV2-YOLOv3-Nano-coco"), ("yolo-fastest-1.1", "yolo-fastest-1.1")],
)
def test_the_dog_picture_shows_what_opencv_sees(folder: str, name: str, call: Command, tmp_path: Path) -> None:
    files, dog = MATERIAL / folder, MATERIAL / "images" / "dog.jpg"
    weights, names = files / f"{name}.weights", files / "coco.names"
    model = tmp_path / "m.onnx"
    done = call("import-darknet", files / f"{name}.cfg", "--weights", weights, "--labels", names, "-o", model)
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(call("predict", model, dog, "--json").stdout)["images"]
    found = {one["label"] for one in image["detections"]}
    assert {"dog", "bicycle"} <= found and found & {"car", "truck"}
    expected = list(_opencv(files / f"{name}.cfg", weights, dog, names.read_text().split("\n")))
    assert [label for label, _, _ in expected] == [one["label"] for one in image["detections"]]
    for (_, score, box), one in zip(expected, image["detections"], strict=True):
        assert one["score"] == pytest.approx(score, abs=2e-3)
        assert _overlap(np.array(one["xyxy"]), box) > 0.98


def _opencv(cfg: Path, weights: Path, path: Path, names: list[str]) -> Iterator[tuple[str, float, NDArray[np.float64]]]:
    """What its reader, its own YOLO layer and its NMS find in the letterboxed image, best first, clipped to it."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    with Image.open(path) as image:
        side = 320
        scale = side / max(image.size)
        size = tuple(int(edge * scale) for edge in image.size)
        canvas = Image.new("RGB", (side, side), (127, 127, 127))
        corner = tuple((side - edge) // 2 for edge in size)
        canvas.paste(image.resize(size, Image.Resampling.BILINEAR), corner)
        limit = np.tile(image.size, 2)
    network.setInput(np.asarray(canvas, np.float32).transpose(2, 0, 1)[None] / 255)
    rows = np.concatenate(network.forward(network.getUnconnectedOutLayersNames()))
    results = []
    for label, scores in enumerate(rows[:, 5:].T):
        centre, sides = rows[:, :2] * side, rows[:, 2:4] * side
        boxes = np.concatenate([centre - sides / 2, sides], axis=1)
        for kept in np.array(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.25, 0.45), int).ravel():
            left, top, width, height = boxes[kept]
            corners = (np.array([left, top, left + width, top + height]) - np.tile(corner, 2)) / scale
            results.append((names[label], float(scores[kept]), np.clip(corners, 0, limit)))
    yield from sorted(results, key=lambda one: -one[1])


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Intersection over union."""
    sides = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    areas = [(box[2:] - box[:2]).prod() for box in (one, other)]
    return float(sides.prod() / (sum(areas) - sides.prod()))
