"""Backbones as frozen trunks: the libraries' own features, the libraries' own weights, and what is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra train")
timm = pytest.importorskip("timm", reason="needs the extra train")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torchvision import models, transforms  # noqa: E402

from edgetl import config  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, fingerprint, load_backbone  # noqa: E402

MATERIAL = Path(__file__).parents[3] / ".." / "shared" / "material" / "backbones"
needs_material = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the real weights do not lie beside the project")

TORCHVISION = {
    "resnet18": ("fc", 32, 512),
    "mobilenet_v2": ("classifier.1", 32, 1280),
    "mobilenet_v3_small": ("classifier.3", 32, 1024),
    "vgg11": ("classifier.6", 32, 4096),
    "googlenet": ("fc", 32, 1024),
    "inception_v3": ("fc", 80, 2048),
    "densenet121": ("classifier", 32, 1024),
    "shufflenet_v2_x0_5": ("fc", 32, 1024),
    "convnext_tiny": ("classifier.2", 32, 768),
    "swin_t": ("head", 32, 768),
    "vit_b_16": ("heads.head", 224, 768),
}
"""The layer that classifies, an image size, and the width of what that layer reads."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_features_are_what_the_classifier_of_a_torchvision_network_reads(name: str) -> None:
    classifier, size, width = TORCHVISION[name]
    backbone = _load(f"torchvision/{name}", size)
    images = _images(2, size)
    features = _features(backbone, images)
    assert features.shape == (2, width)
    assert backbone.reference.feature_dim == width
    reference = _torchvision_like(name, backbone)
    expected = _input_of(reference, classifier, _normalised(images))
    assert features.std() > 0
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_features_of_squeezenet_are_the_pooled_maps_that_its_classifier_reads() -> None:
    backbone, images = _load("torchvision/squeezenet1_1", 64), _images(2, 64)
    reference = _torchvision_like("squeezenet1_1", backbone)
    expected = _input_of(reference, "classifier.1", _normalised(images)).mean(dim=(2, 3))
    features = _features(backbone, images)
    assert features.shape == (2, 512)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size"),
    [("mobilenetv3_small_050", 32), ("resnet10t", 32), ("test_vit", 160), ("vit_tiny_patch16_224", 224)],
)
def test_features_are_what_the_classifier_of_a_timm_network_reads(name: str, size: int) -> None:
    backbone, images = _load(f"timm/{name}", size), _images(2, size)
    reference: Any = timm.create_model(name, pretrained=False).eval()
    left_out = reference.load_state_dict(backbone.trunk.backbone.state_dict(), strict=False)
    assert not left_out.unexpected_keys
    mean, std = (torch.tensor(reference.pretrained_cfg[part]).view(1, 3, 1, 1) for part in ("mean", "std"))
    with torch.inference_mode():
        maps = reference.forward_features((images - mean) / std)
        expected = reference.forward_head(maps, pre_logits=True)
    features = _features(backbone, images)
    assert features.shape == (2, backbone.reference.feature_dim)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_the_reference_and_the_preprocessing_are_those_of_the_network() -> None:
    backbone = _load("timm/mobilenetv3_small_050", 96)
    settings = timm.create_model("mobilenetv3_small_050").pretrained_cfg
    assert backbone.reference.mean == tuple(settings["mean"])
    assert backbone.reference.std == tuple(settings["std"])
    assert backbone.preprocessing.width == 96
    assert backbone.preprocessing.interpolation == settings["interpolation"] == "bicubic"
    assert backbone.reference.parameters == sum(p.numel() for p in backbone.trunk.parameters())
    assert (backbone.reference.name, backbone.reference.weights) == ("timm/mobilenetv3_small_050", None)


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (_load("torchvision/squeezenet1_1", 64, seed=seed) for seed in (0, 0, 1))
    assert first.reference.fingerprint == again.reference.fingerprint
    assert first.reference.fingerprint != other.reference.fingerprint


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_rescale_their_input_do_so_with_weights_from_a_file(name: str) -> None:
    assert _load(f"torchvision/{name}", 96).trunk.backbone.transform_input


# Refusals


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision/resnet19", "did you mean resnet18"),
        ("torchvision/mobilenetv2", "did you mean mobilenet_v2"),
        ("timm/resnet10", "did you mean resnet10t"),
        ("timm/mobilenet_v3_small_050", "did you mean mobilenetv3_small_050"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_it_may_have_meant(name: str, hint: str) -> None:
    library = name.partition("/")[0]
    assert hint in _refused(name, f"backbone {name} is unknown to the installed {library} (")


@pytest.mark.parametrize("name", ["torchvision/qqqqqq", "timm/qqqqqq", "timm/hf_hub:qqqqqq/qqqqqq"])
def test_an_unknown_name_like_no_other_is_refused_without_a_hint(name: str) -> None:
    assert "did you mean" not in _refused(name, f"backbone {name} is unknown to the installed")


@pytest.mark.parametrize(
    "name",
    [
        "torchvision/fasterrcnn_mobilenet_v3_large_fpn",
        "torchvision/ssdlite320_mobilenet_v3_large",
        "torchvision/lraspp_mobilenet_v3_large",
        "torchvision/fcn_resnet50",
        "torchvision/raft_small",
        "torchvision/r3d_18",
    ],
)
def test_networks_for_detection_segmentation_video_and_flow_are_refused(name: str) -> None:
    _refused(name, f"backbone {name} is unknown to the installed torchvision")


def test_a_timm_tag_that_does_not_exist_is_refused_without_blaming_the_network() -> None:
    assert "fetched" not in _refused("timm/resnet10t.nonsense", "timm/resnet10t.nonsense")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/vit_b_16", 64),
        ("torchvision/alexnet", 32),
        ("torchvision/inception_v3", 48),
        ("torchvision/squeezenet1_1", 16),
        ("timm/vit_tiny_patch16_224", 64),
    ],
)
def test_an_image_size_that_the_network_cannot_take_is_refused(name: str, size: int) -> None:
    message = _refused(name, f"{name} cannot take images of {size} x {size}: ", size=size)
    assert "choose another backbone.image_size" in message


@pytest.mark.parametrize(
    "name", ["torchvision/squeezenet1_1", "torchvision/inception_v3", "timm/mobilenetv3_small_050"]
)
def test_default_weights_without_a_network_are_one_clear_line(name: str, without_network: None) -> None:
    start = time.monotonic()
    message = _refused(name, f"the default weights of {name} could not be fetched (", weights="default", size=96)
    assert "give backbone.weights the file, or null for random weights" in message
    assert time.monotonic() - start < 30, "it hung"


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_file(models.get_model("shufflenet_v2_x0_5").state_dict(), tmp_path / "w.safetensors")
    message = _refused("torchvision/squeezenet1_1", "do not fit torchvision/squeezenet1_1", tmp_path, "w.safetensors")
    assert "missing (features.0.weight, " in message
    assert "unexpected (" in message


def test_missing_weights_are_refused_with_their_path(tmp_path: Path) -> None:
    _refused("edgetl/nano", f"weights {tmp_path / 'absent.pth'} do not exist", tmp_path, "absent.pth")


# Frozen


@pytest.mark.parametrize("name", ["edgetl/nano", "torchvision/mobilenet_v2", "timm/mobilenetv3_small_050"])
def test_training_a_head_on_a_trunk_leaves_every_tensor_of_it_as_it_was(name: str) -> None:
    """Batch-norm statistics and dropout too, whoever calls train() on what the trunk is part of."""
    backbone = _load(name, 32)
    before = {key: tensor.clone() for key, tensor in backbone.trunk.state_dict().items()}
    whole = nn.Sequential(backbone.trunk, nn.Linear(backbone.reference.feature_dim, 3)).train()
    head = whole[1].weight.clone()
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
    for step in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(whole(_images(4, 32, seed=step)), torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
    assert not torch.equal(whole[1].weight, head), "the head did not train, so this proves nothing"
    after = backbone.trunk.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert fingerprint(backbone.trunk) == backbone.reference.fingerprint


def test_a_trunk_stays_in_evaluation_mode() -> None:
    trunk = _load("torchvision/mobilenet_v2", 32).trunk
    nn.Sequential(trunk).train()
    assert trunk.train() is trunk
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


# Fingerprint


def test_the_fingerprint_changes_with_every_single_tensor() -> None:
    trunk = _load("edgetl/nano", 32).trunk
    seen = {fingerprint(trunk)}
    for tensor in trunk.state_dict().values():
        kept = tensor.clone()
        flat = tensor.view(-1)
        flat[-1] = flat[-1] + 1
        seen.add(fingerprint(trunk))
        tensor.copy_(kept)
    assert len(seen) == 1 + len(trunk.state_dict())
    assert fingerprint(trunk) in seen


def test_the_fingerprint_tells_the_last_bit_of_a_weight() -> None:
    trunk = _load("edgetl/nano", 32).trunk
    before = fingerprint(trunk)
    flat = next(trunk.parameters()).view(-1)
    flat[0] = torch.nextafter(flat[0], torch.tensor(float("inf")))
    assert fingerprint(trunk) != before


def test_the_fingerprint_tells_shapes_and_names_of_the_same_bytes_apart() -> None:
    def module(**tensors: Tensor) -> nn.Module:
        made = nn.Module()
        for name, tensor in tensors.items():
            made.register_buffer(name, tensor)
        return made

    one, two = torch.ones(2, 3), torch.zeros(2, 3)
    different = [
        module(a=one, b=two),
        module(a=two, b=one),
        module(a=one.view(3, 2), b=two),
        module(a=one, c=two),
        module(a=one.view(torch.int32), b=two),
    ]
    assert len({fingerprint(each) for each in different}) == len(different)


def test_the_fingerprint_does_not_depend_on_the_order_of_construction() -> None:
    torch.manual_seed(0)
    a, b = nn.Linear(2, 3), nn.BatchNorm1d(3)
    forwards, backwards = nn.Module(), nn.Module()
    forwards.a, forwards.b = a, b
    backwards.b, backwards.a = b, a
    assert list(forwards.state_dict()) != list(backwards.state_dict())
    assert fingerprint(forwards) == fingerprint(backwards)


def test_the_fingerprint_does_not_depend_on_the_layout_in_memory() -> None:
    trunk = _load("edgetl/nano", 32).trunk
    before = fingerprint(trunk)
    assert fingerprint(trunk.to(memory_format=torch.channels_last)) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_fingerprint_does_not_depend_on_the_device() -> None:
    backbone = _load("edgetl/nano", 32)
    assert fingerprint(backbone.trunk.to("cuda")) == backbone.reference.fingerprint


# Real weights


@needs_material
@pytest.mark.material
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet_v2", "mobilenet_v2/mobilenet_v2.torchvision.safetensors"),
        ("squeezenet1_0", "squeezenet1_0/squeezenet1_0.safetensors"),
    ],
)
def test_real_weights_recognise_photographs_once_their_classifier_is_back(name: str, file: str) -> None:
    trunk = _load(f"torchvision/{name}", 224, MATERIAL, file).trunk
    tensors = {
        key.removeprefix("classifier."): t for key, t in load_file(MATERIAL / file).items() if "classifier" in key
    }
    classifier = models.get_model(name).classifier
    classifier.load_state_dict(tensors)
    trunk.backbone.classifier = classifier.eval()
    expected = json.loads((MATERIAL / "images" / "expected_top5.json").read_text(encoding="utf-8"))
    key = Path(file).stem
    images = torch.stack([_photograph(MATERIAL / "images" / photograph) for photograph in expected])
    with torch.inference_mode():
        probabilities = trunk(images).softmax(dim=1)
    for photograph, found in zip(expected, probabilities, strict=True):
        for position, _, probability in expected[photograph][key]:
            assert float(found[position]) == pytest.approx(probability, abs=2e-3), photograph
        assert int(found.argmax()) == expected[photograph][key][0][0], photograph


@needs_material
@pytest.mark.material
def test_the_same_real_weights_in_two_libraries_give_the_same_features() -> None:
    ours = _load("torchvision/mobilenet_v2", 96, MATERIAL, "mobilenet_v2/mobilenet_v2.torchvision.safetensors")
    theirs = _load("timm/mobilenetv2_100", 96, MATERIAL, "mobilenet_v2/mobilenetv2_100.timm.safetensors")
    images = _images(2, 96)
    torch.testing.assert_close(_features(ours, images), _features(theirs, images), rtol=1e-4, atol=1e-4)


@needs_material
@pytest.mark.material
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("timm/mobilenetv2_100", "mobilenet_v2/mobilenet_v2.torchvision.safetensors"),
        ("torchvision/mobilenet_v2", "mobilenet_v2/mobilenetv2_100.timm.safetensors"),
        ("torchvision/squeezenet1_1", "squeezenet1_0/squeezenet1_0.safetensors"),
    ],
)
def test_real_weights_of_another_library_or_version_are_refused(name: str, file: str) -> None:
    _refused(name, f"do not fit {name}", MATERIAL, file, size=96)


@pytest.fixture
def without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty caches, and a proxy at which nobody listens."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # huggingface_hub reads its variables when it is imported, which may have been before.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield


def _load(name: str, size: int, beside: Path = Path(), weights: str | None = None, seed: int = 0) -> Backbone:
    return load_backbone(config.BackboneSettings(name=name, weights=weights, image_size=size), beside, seed)


def _refused(name: str, reason: str, beside: Path = Path(), weights: str | None = None, size: int = 64) -> str:
    with pytest.raises(EdgetlError) as error:
        _load(name, size, beside, weights)
    message = str(error.value)
    assert reason in message
    assert "\n" not in message
    return message


def _images(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    with torch.inference_mode():
        features: Tensor = backbone.trunk(images)
    return features.clone()


def _normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)


def _photograph(path: Path) -> Tensor:
    """As the recorded results were got: short side 256, centre 224."""
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    pixels = np.asarray(prepare(Image.open(path).convert("RGB")), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _torchvision_like(name: str, backbone: Backbone) -> nn.Module:
    """The whole network as torchvision builds it, with the trunk's tensors; the head's stay without values."""
    special = {"transform_input": True, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    with torch.device("meta"):
        reference = models.get_model(name, weights=None, **special)
    left_out = reference.load_state_dict(backbone.trunk.backbone.state_dict(), strict=False, assign=True)
    assert not left_out.unexpected_keys
    assert isinstance(reference, nn.Module)
    return reference.eval()


class _ReachedError(Exception):
    """The layer is reached; what comes after it has no values."""


def _input_of(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    kept: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        kept.append(arguments[0].clone())
        raise _ReachedError

    network.get_submodule(layer).register_forward_pre_hook(keep)
    with torch.inference_mode(), pytest.raises(_ReachedError):
        network(images)
    return kept[0]
