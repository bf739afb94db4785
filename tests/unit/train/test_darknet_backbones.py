"""Darknet classifiers as ordinary backbones: their features, their cuts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")

from edgetl import config  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.backbones import load_backbone  # noqa: E402
from edgetl.train.cuts import cut_points, split  # noqa: E402
from edgetl.train.darknet.cfg import read_cfg  # noqa: E402
from edgetl.train.darknet.network import build  # noqa: E402
from tests.darknet_weights import write_weights  # noqa: E402

CLASSIFIER = """
[net]
width=32
height=32
channels=3

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=leaky

[convolutional]
filters=5
size=1
stride=1
pad=1
activation=linear

[avgpool]

[softmax]
"""

DETECTOR = (
    CLASSIFIER.replace("[avgpool]\n\n[softmax]", "[yolo]\nanchors=4,4\nnum=1\nclasses=0")
    .replace("filters=5", "filters=6")
    .replace("classes=0", "classes=1")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.cfg").write_text(CLASSIFIER)
    torch.manual_seed(3)
    write_weights(tmp_path / "small.weights", build(read_cfg(tmp_path / "small.cfg")))
    return tmp_path


def test_features_are_what_the_last_convolution_reads(folder: Path) -> None:
    backbone = load_backbone(config.BackboneSettings(name="darknet/small.cfg", weights="small.weights"), folder, seed=0)
    torch.manual_seed(3)
    whole = build(read_cfg(folder / "small.cfg"))
    images = torch.rand(2, 3, 32, 32)
    maps = images
    for number in range(3):
        maps = whole.layers[number](maps)
    assert backbone.preprocessing.shape == (3, 32, 32)
    assert backbone.reference.feature_dim == 16
    torch.testing.assert_close(backbone.trunk(images), maps.mean(dim=(2, 3)))


def test_a_cfg_can_be_cut_between_its_sections(folder: Path) -> None:
    backbone = load_backbone(config.BackboneSettings(name="darknet/small.cfg", weights="small.weights"), folder, seed=0)
    (first,) = (point.name for point in cut_points(backbone))
    lower, upper = split(backbone, first)
    images = torch.rand(2, 3, 32, 32)
    assert first == "layers.1"
    assert torch.equal(upper(lower(images)), backbone.trunk(images))


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ({"name": "darknet/none.cfg", "weights": None}, "none.cfg"),
        ({"name": "darknet/small.cfg", "weights": "none.weights"}, "none.weights do not exist"),
        ({"name": "darknet/detector.cfg", "weights": None}, "is a detector; say task: detect"),
        ({"name": "darknet/wide.cfg", "weights": None}, "takes images of 64 x 32; give one side"),
        ({"name": "darknet/other.cfg", "weights": "small.weights"}, "expected"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(folder: Path, backbone: dict[str, str], reason: str) -> None:
    (folder / "detector.cfg").write_text(DETECTOR)
    (folder / "wide.cfg").write_text(CLASSIFIER.replace("width=32", "width=64"))
    (folder / "other.cfg").write_text(CLASSIFIER.replace("filters=16", "filters=24"))
    with pytest.raises(EdgetlError) as error:
        load_backbone(config.BackboneSettings(**backbone), folder, seed=0)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
