"""Real Darknet networks: the raw outputs are those of OpenCV's own Darknet reader."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra train")
cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
from torch import Tensor  # noqa: E402

from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.darknet.modules import Convolutional  # noqa: E402

pytestmark = pytest.mark.material

TRAINED = (
    "mobilenetv2-yolov3-nano-coco",
    "mobilenetv2-yolo-fastest-voc",
    "yolo-fastest-1.1",
    "tiny-classifier",
)
UNTRAINED = (
    "darknet",
    "darknet53",
    "tiny",
    "yolov2-tiny",
    "yolov2-tiny-voc",
    "yolov3",
    "yolov3-tiny",
    "yolov3-tiny-prn",
    "yolov4",
    "yolov4-tiny",
)
SIDE = 96
NEAR = 1e-3
"""Of the largest absolute value, over all positions and channels of an output."""


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_give_what_they_give_in_opencv(
    name: str, material: Path, files_of: Any, record_property: Callable[[str, object], None]
) -> None:
    files = _trained(name, material, files_of)
    network = files.network()
    photographs = [material / "images" / f"{photograph}.jpg" for photograph in ("dog", "eagle", "person")]
    images = torch.cat([_blob(photograph, network.width, network.height) for photograph in photographs])
    difference = files.difference(network, images)
    record_property("difference", difference)
    assert difference < NEAR


@pytest.mark.parametrize("name", UNTRAINED)
def test_networks_with_seeded_weights_give_what_they_give_in_opencv(
    name: str,
    material: Path,
    written: Callable[[str], Any],
    pictures: Callable[[int, int, int], Tensor],
    record_property: Callable[[str, object], None],
) -> None:
    text = (material / "cfg-only" / f"{name}.cfg").read_text(encoding="utf-8")
    files = written(re.sub(r"(?m)^(width|height)=\d+", rf"\1={SIDE}", text))
    network, images = files.seeded(), pictures(3, SIDE, SIDE)
    _must_be_alive(network, images)
    difference = files.difference(network, images)
    record_property("difference", difference)
    assert difference < NEAR


def test_recorded_outputs_of_a_classifier_are_met(material: Path, files_of: Any, outputs: Callable[..., Any]) -> None:
    recorded = np.load(material / "golden" / "tiny-classifier.eagle.npz")
    images = torch.from_numpy(recorded["input_rgb_uint8"]).permute(2, 0, 1)[None] / 255
    (scores,) = outputs(_trained("tiny-classifier", material, files_of).network(), images)
    np.testing.assert_allclose(scores, recorded["softmax"].reshape(1, -1), atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenetv2-yolov3-nano-coco", "yolo-fastest-1.1"])
def test_recorded_detections_are_in_the_raw_outputs(
    name: str, material: Path, files_of: Any, outputs: Callable[..., Any]
) -> None:
    """Objectness times class score, at the places where OpenCV's were recorded, and as large."""
    recorded = np.load(material / "golden" / f"{name}.dog.npz")
    images = torch.from_numpy(recorded["input_rgb_uint8"]).permute(2, 0, 1)[None] / 255
    network = _trained(name, material, files_of).network()
    for position, (raw, ending) in enumerate(zip(outputs(network, images), network.detection_layers, strict=True)):
        _, _, height, width = raw.shape
        values = torch.from_numpy(raw).reshape(len(ending.scale.anchors), 5 + ending.classes, height * width).sigmoid()
        scores = (values[:, 4:5] * values[:, 5:]).permute(2, 0, 1).reshape(-1, ending.classes).numpy()
        expected = recorded[f"out{position}"][:, 5:]
        assert (expected > 0.2).any() or position
        kept = expected > 0
        np.testing.assert_allclose(scores[kept], expected[kept], atol=1e-3)


def test_anchors_are_those_of_the_mask_in_pixels(material: Path, files_of: Any) -> None:
    network = _trained("yolo-fastest-1.1", material, files_of).network()
    assert [ending.scale.anchors for ending in network.detection_layers] == [
        ((115.0, 73.0), (119.0, 199.0), (242.0, 238.0)),
        ((12.0, 18.0), (37.0, 49.0), (52.0, 132.0)),
    ]
    assert {ending.classes for ending in network.detection_layers} == {80}
    sizes = json.loads((material / "golden" / "expected_detections.json").read_text(encoding="utf-8"))
    assert [network.width, network.height] == sizes["models"]["yolo-fastest-1.1"]["input"]


def test_a_damaged_weights_file_is_an_error_that_says_where_it_ends(material: Path, files_of: Any) -> None:
    folder = material / "truncated-yolov4-tiny"
    with pytest.raises(EdgetlError) as error:
        files_of(folder / "yolov4-tiny.cfg", folder / "yolov4-tiny.weights").network()
    assert "hold 90828 values and 2 bytes of another, expected 6062814" in str(error.value)
    assert "end inside layer 10 [convolutional] (line 97 of the .cfg)" in str(error.value)


def _trained(name: str, material: Path, files_of: Any) -> Any:
    folder = material / name
    return files_of(next(folder.glob("*.cfg")), next(folder.glob("*.weights")))


def _blob(path: Path, width: int, height: int) -> Tensor:
    image = np.asarray(Image.open(path).convert("RGB").resize((width, height)), dtype=np.float32)
    return torch.from_numpy(image / 255).permute(2, 0, 1)[None]


def _must_be_alive(network: Any, images: Tensor) -> None:
    """Every convolutional layer's output varies, in all its channels, and is neither tiny nor huge."""
    spreads: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda *run: spreads.append(run[2].std(dim=(0, 2, 3))))
        for module in network.modules()
        if isinstance(module, Convolutional)
    ]
    with torch.inference_mode():
        network(images)
    for hook in hooks:
        hook.remove()
    assert len(spreads) == len(hooks) > 0
    assert min(float(spread.min()) for spread in spreads) > 1e-3
    assert max(float(spread.max()) for spread in spreads) < 1e3
