"""Backbones of detectors: which maps they give, and what of a Darknet detector is still there without its endings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.config import BackboneSettings
from edgetl.errors import EdgetlError
from edgetl.graph.parity import run
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import build
from edgetl.train.darknet.weights import read_weights
from edgetl.train.detect.detector import Detector, load_detector
from edgetl.train.detect.joint import DetectorNetwork
from edgetl.train.detect.yolo_heads import pyramid_head
from edgetl.train.load_weights import load_into
from edgetl.train.onnx_export import export_network

Load = Callable[..., Detector]
MATERIAL = Path(__file__).parents[4] / ".." / "shared" / "material" / "darknet"


def loaded(name: str, size: int | tuple[int, int], **more: object) -> Detector:
    return load_detector(BackboneSettings(name=name, weights=None, image_size=size, **more), Path(), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("torchvision/resnet18", 96, ((128, 12, 12), (256, 6, 6), (512, 3, 3))),
        ("torchvision/mobilenet_v2", (128, 96), ((32, 12, 16), (96, 6, 8), (1280, 3, 4))),
        ("torchvision/vgg11", 128, ((512, 16, 16), (512, 8, 8), (512, 4, 4))),
        ("torchvision/squeezenet1_0", 128, ((512, 15, 15), (512, 7, 7))),
        ("torchvision/inception_v3", 128, ((288, 13, 13), (768, 6, 6), (2048, 2, 2))),
        ("torchvision/googlenet", 96, ((480, 12, 12), (832, 6, 6), (1024, 3, 3))),
        ("torchvision/densenet121", 64, ((512, 8, 8), (1024, 4, 4), (1024, 2, 2))),
        ("timm/darknet53", 64, ((256, 8, 8), (512, 4, 4), (1024, 2, 2))),
        ("edgetl/nano", 96, ((160, 12, 12),)),
    ],
)
def test_maps_are_whole_outputs_of_the_deepest_blocks_at_falling_resolutions(
    name: str, size: int | tuple[int, int], shapes: tuple[tuple[int, int, int], ...]
) -> None:
    detector = loaded(name, size)
    assert detector.shapes == shapes
    assert all(one[1] > other[1] for one, other in pairwise(detector.shapes))
    with torch.inference_mode():
        maps = detector.trunk()(torch.rand(1, *detector.preprocessing.shape))
    assert tuple(tuple(one.shape[1:]) for one in maps) == shapes
    assert detector.reference.feature_dim == sum(shape[0] for shape in shapes)
    assert (detector.preprocessing.fit, detector.pretrained) == ("letterbox", None)
    assert detector.anchors == ((5,) if len(shapes) == 1 else (3,) * len(shapes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("torchvision/squeezenet1_0", 96), ("torchvision/alexnet", 288), ("torchvision/inception_v3", 107)],
)
def test_a_trunk_with_a_pyramid_is_exported_whatever_the_size_of_its_maps(name: str, size: int) -> None:
    """AlexNet's own pooling to 6 x 6, and VGG's to 7 x 7, would allow few sizes; and sides of maps need not be even."""
    detector = loaded(name, size)
    scales = [YoloScale(anchors=((9.0, 9.0),)) for _ in detector.maps]
    whole = DetectorNetwork(detector.trunk(), pyramid_head([shape[0] for shape in detector.shapes], 8, scales, 1, 0))
    names = [f"raw{number}" for number in range(len(scales))]
    images = np.random.default_rng(0).random((2, *detector.preprocessing.shape), dtype=np.float32)
    outputs = run(export_network(whole, detector.preprocessing.shape, names, name), images)
    with torch.inference_mode():
        for tensor, raw in zip(names, whole(torch.from_numpy(images)), strict=True):
            np.testing.assert_allclose(outputs[tensor], raw.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["timm/vit_tiny_patch16_224", "torchvision/vit_b_16", "timm/swin_tiny_patch4_window7_224"]
)
def test_a_network_without_maps_is_refused(name: str) -> None:
    with pytest.raises(EdgetlError, match=f"{name} has no maps that boxes could be read from at 224 x 224 pixels"):
        loaded(name, 224)


def test_two_cells_across_are_a_map_and_one_is_none() -> None:
    assert loaded("edgetl/nano", 16).shapes == ((160, 2, 2),)
    assert loaded("torchvision/resnet18", 32).shapes == ((128, 4, 4), (256, 2, 2))


def test_an_image_size_that_the_network_cannot_take_is_an_error_that_says_so() -> None:
    with pytest.raises(EdgetlError, match=r"inception_v3 cannot take images of 64 x 64: .*; choose another") as error:
        loaded("torchvision/inception_v3", 64)
    assert "\n" not in str(error.value)


def test_an_unknown_network_is_named_with_its_likely_neighbours() -> None:
    with pytest.raises(EdgetlError, match=r"backbone torchvision/resnet19 is unknown .*did you mean resnet1"):
        loaded("torchvision/resnet19", 96)


def test_a_trunk_is_frozen_and_its_fingerprint_is_that_of_its_weights() -> None:
    one, two, other = (load_detector(BackboneSettings(name="edgetl/nano", weights=w), Path(), s) for w, s in _NANOS)
    assert one.reference.fingerprint == two.reference.fingerprint != other.reference.fingerprint
    assert not any(parameter.requires_grad for parameter in one.trunk().parameters())
    assert one.preprocessing.width == one.preprocessing.height == 320, "where neither study nor network say a size"


_NANOS = (("default", 0), ("default", 1), (None, 0))


def test_a_darknet_trunk_and_its_endings_are_the_whole_network_bit_for_bit(darknet: Load, darknet_folder: Path) -> None:
    network = build(read_cfg(darknet_folder / "network.cfg"))
    weights = darknet_folder / "network.weights"
    load_into(network, read_weights(weights, network.cfg), (), "the network", str(weights))
    detector = darknet()
    assert detector.pretrained is not None
    images = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = detector.trunk()(images)
        raws = [ending(one) for ending, one in zip(detector.pretrained.convolutions, maps, strict=True)]
        for ours, whole in zip(raws, network(images), strict=True):
            assert torch.equal(ours, whole)


def test_of_a_darknet_detector_all_is_known_that_its_files_say(darknet: Load) -> None:
    detector = darknet()
    assert detector.pretrained is not None
    assert detector.pretrained.labels == ("car", "bus", "stop")
    assert detector.shapes == ((16, 2, 4), (12, 4, 8))
    assert detector.anchors == (3, 2)
    assert detector.pretrained.scales[1].anchors == ((6.0, 5.0), (10.0, 14.0))
    assert (detector.frame.width, detector.frame.height) == (64, 32)
    assert (detector.reference.mean, detector.reference.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_another_image_size_changes_maps_and_not_anchors(darknet: Load) -> None:
    detector = darknet(image_size=(128, 96))
    assert detector.shapes == ((16, 6, 8), (12, 12, 16))
    assert detector.pretrained is not None
    assert detector.pretrained.scales[1].anchors == ((6.0, 5.0), (10.0, 14.0))


def test_an_ending_with_random_weights_or_without_a_list_knows_no_label(darknet: Load) -> None:
    for changes in ({"labels": None}, {"weights": None}):
        detector = darknet(**changes)
        assert detector.pretrained is not None
        assert detector.pretrained.labels == ()


def test_a_list_of_labels_of_another_network_is_refused(darknet: Load, darknet_folder: Path) -> None:
    (darknet_folder / "coco.names").write_text("\n".join(f"label {n}" for n in range(80)))
    with pytest.raises(EdgetlError, match=r"labels coco.names has 80 names, darknet/network.cfg has 3 classes"):
        darknet(labels="coco.names")
    with pytest.raises(EdgetlError, match=r"nowhere.names does not exist"):
        darknet(labels="nowhere.names")


def test_a_classifiers_cfg_is_no_detector(darknet: Load, darknet_folder: Path) -> None:
    classifier = (
        "[net]\nwidth=32\nheight=32\nchannels=3\n\n[convolutional]\nfilters=4\nsize=1\n\n[avgpool]\n\n[softmax]\n"
    )
    (darknet_folder / "classifier.cfg").write_text(classifier)
    with pytest.raises(EdgetlError, match=r"classifier.cfg is a classifier, .* give the cfg of a detector"):
        darknet(name="darknet/classifier.cfg", weights=None, labels=None)


def test_weights_of_another_cfg_are_refused_with_what_was_expected(darknet: Load, darknet_folder: Path) -> None:
    text = (darknet_folder / "network.cfg").read_text()
    (darknet_folder / "wider.cfg").write_text(text.replace("filters=12", "filters=20"))
    with pytest.raises(EdgetlError, match=r"network.weights .*expected") as error:
        darknet(name="darknet/wider.cfg")
    assert "\n" not in str(error.value)


@pytest.mark.material
@pytest.mark.parametrize("name", ["mobilenetv2-yolov3-nano-coco", "yolo-fastest-1.1"])
def test_real_detectors_are_the_same_without_their_endings_and_with_them(name: str) -> None:
    folder = MATERIAL / name
    if not folder.is_dir():
        pytest.skip("the real networks do not lie beside the project")
    (cfg,), (weights,) = (list(folder.glob(f"*.{kind}")) for kind in ("cfg", "weights"))
    study = BackboneSettings(name=f"darknet/{cfg.name}", weights=weights.name, image_size=160)
    detector = load_detector(study, folder, 0)
    network = build(read_cfg(cfg, 160))
    load_into(network, read_weights(weights, network.cfg), (), "the network", str(weights))
    images = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    assert detector.pretrained is not None
    with torch.inference_mode():
        maps = detector.trunk()(images)
        for ending, one, whole in zip(detector.pretrained.convolutions, maps, network(images), strict=True):
            assert torch.equal(ending(one), whole)
