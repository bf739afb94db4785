"""Cuts: where a network comes apart into two that are the network again, and which of these places a study gets."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("timm", reason="needs the extra train")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from edgetl import config  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.backbones import Backbone, load_backbone  # noqa: E402
from edgetl.train.cuts import CutPoint, choose_cuts, cut_points, pool, pooled, split  # noqa: E402

NETWORKS = {
    "edgetl/nano": (32, "features.1 features.2 features.3 features.4"),
    "torchvision/mobilenet_v2": (32, " ".join(f"features.{n}" for n in range(18))),
    "torchvision/resnet18": (32, "maxpool layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0"),
    "torchvision/squeezenet1_1": (32, " ".join(f"features.{n}" for n in (2, 3, 5, 6, 8, 9, 10, 11))),
    "torchvision/vgg11": (
        32,
        "features.2 features.5 features.7 features.10 features.12 features.15 features.17 avgpool classifier.2",
    ),
    "torchvision/googlenet": (
        32,
        "maxpool1 conv2 maxpool2 inception3a maxpool3 inception4a inception4b inception4c inception4d maxpool4 "
        "inception5a",
    ),
    "timm/mobilenetv2_100": (
        32,
        "bn1 blocks.0.0 blocks.1.0 blocks.1.1 blocks.2.0 blocks.2.1 blocks.2.2 blocks.3.0 blocks.3.1 blocks.3.2 "
        "blocks.3.3 blocks.4.0 blocks.4.1 blocks.4.2 blocks.5.0 blocks.5.1 blocks.5.2 blocks.6.0",
    ),
    "timm/resnet10t": (32, "conv1.2 conv1.5 maxpool layer1.0 layer2.0 layer3.0"),
    "timm/test_vit": (160, "patch_embed norm_pre blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5"),
}
"""An image size, and every layer at which the network can be cut, written down by hand from its printed modules."""

COUNTED = {
    "torchvision/inception_v3": (80, 15),
    "torchvision/swin_t": (32, 17),
    "torchvision/regnet_y_400mf": (32, 16),
    "timm/efficientnet_b0": (32, 17),
    "timm/vit_tiny_patch16_224": (224, 14),
    "timm/regnety_002": (32, 13),
    "timm/mobilevit_xxs": (64, 11),
}
"""The same with the number of layers alone."""

SIZES = {name: size for name, (size, _) in (NETWORKS | COUNTED).items()}


@pytest.fixture(scope="module", params=SIZES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return _load(request.param)


def test_a_truncated_network_gives_one_value_for_each_channel() -> None:
    for name in ("torchvision/resnet18", "torchvision/swin_t", "timm/test_vit"):
        backbone = _load(name)
        point = cut_points(backbone)[3]
        channels = point.shape[0] if name == "torchvision/resnet18" else point.shape[-1]
        assert pooled(split(backbone, point.name)[0])(_images(backbone)).shape == (2, channels), name


@pytest.mark.slow
def test_the_two_parts_of_every_cut_are_the_network_bit_for_bit(backbone: Backbone) -> None:
    images = _images(backbone)
    shapes = {point.name: point.shape for point in cut_points(backbone)}
    with torch.no_grad():
        expected = backbone.trunk(images)
        for cut in ("images", *shapes, "top"):
            lower, upper = split(backbone, cut)
            maps = lower(images)
            assert tuple(maps.shape[1:]) == shapes.get(cut, maps.shape[1:]), cut
            assert torch.equal(upper(maps), expected), cut


@pytest.mark.slow
def test_points_rise_from_the_images_to_the_features(backbone: Backbone) -> None:
    depths = [point.depth for point in cut_points(backbone)]
    assert depths == sorted(depths)
    assert depths[0] > 0.0 and depths[-1] <= 1.0


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_cut_between_blocks_after_layers_without_parameters(name: str) -> None:
    assert [point.name for point in cut_points(_load(name))] == NETWORKS[name][1].split()


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_stages_are_looked_into(name: str) -> None:
    assert len(cut_points(_load(name))) == COUNTED[name][1]


@pytest.mark.slow
def test_every_point_freezes_more_parameters_than_the_one_below_it(backbone: Backbone) -> None:
    counts = []
    for point in cut_points(backbone):
        lower, upper = (dict(part.named_parameters()) for part in split(backbone, point.name))
        assert not lower.keys() & upper.keys(), point.name
        counts.append(len(lower))
    assert counts[0] > 0 and counts == sorted(set(counts))
    assert counts[-1] < len(list(backbone.trunk.parameters()))


@pytest.mark.slow
def test_tensors_keep_their_names_and_are_shared_with_the_trunk(backbone: Backbone) -> None:
    own = dict(backbone.trunk.named_parameters())
    for part in split(backbone, cut_points(backbone)[1].name):
        assert all(own[name] is parameter for name, parameter in part.named_parameters())
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v2", "timm/vit_tiny_patch16_224"])
def test_depth_is_the_share_of_multiply_adds_up_to_the_cut(name: str) -> None:
    """Against sums over the layers that hold them: convolutions and linear layers (attention's products are less)."""
    backbone = _load(name)
    whole = _multiply_adds(backbone.trunk, backbone)
    for point in cut_points(backbone):
        lower, _ = split(backbone, point.name)
        assert point.depth == pytest.approx(_multiply_adds(lower, backbone) / whole, abs=0.01), point.name


def test_no_cut_parts_a_convolution_from_its_batch_normalisation() -> None:
    for name in ("torchvision/resnet18", "timm/mobilenetv2_100"):
        backbone = _load(name)
        for point in cut_points(backbone):
            modules = dict(backbone.trunk.backbone.named_modules())
            assert not isinstance(modules[point.name], nn.Conv2d), point.name
    with pytest.raises(EdgetlError, match="torchvision/resnet18 cannot be cut at 'conv1'"):
        split(_load("torchvision/resnet18"), "conv1")


@pytest.mark.slow
def test_cutting_leaves_the_trunk_as_it_was(backbone: Backbone) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.trunk.state_dict().items()}
    names = [name for name, _ in backbone.trunk.named_modules()]
    cut_points(backbone)
    split(backbone, "images")
    after = backbone.trunk.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [name for name, _ in backbone.trunk.named_modules()] == names
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in backbone.trunk.parameters())


def test_the_upper_part_can_be_copied_and_trained() -> None:
    backbone = _load("torchvision/resnet18")
    lower, upper = split(backbone, "layer3.0")
    own = copy.deepcopy(upper).requires_grad_(True)
    own(lower(_images(backbone))).sum().backward()
    assert all(parameter.grad is not None for parameter in own.parameters())
    assert not any(parameter.requires_grad for parameter in upper.parameters())


# Pooling


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 4, 4), (2, 3)), ((4, 4, 5), (1, 2)), ((4, 4, 4), (2, 3)), ((7, 5), (1,)), ((5,), ())],
    ids=["maps", "maps with the channels last", "as many channels as rows", "tokens", "features"],
)
def test_pooling_averages_over_positions_whatever_the_layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).random((300, *shape), dtype=np.float32)
    expected = maps.mean(axis=axes) if axes else maps
    np.testing.assert_allclose(pool(maps), expected, rtol=1e-5)
    np.testing.assert_allclose(pooled(nn.Identity())(torch.from_numpy(maps)).numpy(), expected, rtol=1e-5)


# Choosing


POINTS = tuple(
    CutPoint(f"features.{n}", (8, 4, 4), depth, (f"alias.{n}",))
    for n, depth in enumerate((0.02, 0.1, 0.21, 0.3, 0.39, 0.5, 0.62, 0.7, 0.82, 0.9, 0.97))
)


def test_no_cut_is_the_top() -> None:
    assert choose_cuts(POINTS, None) == ("top",)
    assert choose_cuts((), None) == ("top",)


def test_names_come_from_the_images_upward_and_end_with_the_top() -> None:
    wanted = ("features.6", "top", "images", "features.1")
    assert choose_cuts(POINTS, wanted) == ("images", "features.1", "features.6", "top")
    assert choose_cuts(POINTS, "features.3") == ("features.3", "top")
    assert choose_cuts(POINTS, "top") == ("top",)
    assert choose_cuts((), "images") == ("images", "top")


def test_another_path_to_the_same_cut_is_that_cut() -> None:
    assert choose_cuts(POINTS, ("alias.4", "features.4")) == ("features.4", "top")
    points = cut_points(_load("torchvision/resnet18"))
    assert choose_cuts(points, ("layer1", "bn1", "layer2.1")) == ("maxpool", "layer1.1", "layer2.1", "top")


def test_a_sweep_is_six_cuts_spread_evenly_over_depth() -> None:
    chosen = choose_cuts(POINTS, "sweep")
    assert chosen == (*(f"features.{n}" for n in (1, 3, 4, 6, 7, 8)), "top")
    assert choose_cuts(POINTS[:4], "sweep") == (*(point.name for point in POINTS[:4]), "top")


def test_a_sweep_of_mobilenet_v2_reaches_from_the_first_blocks_to_the_last() -> None:
    backbone = _load("torchvision/mobilenet_v2")
    points = {point.name: point.depth for point in cut_points(backbone)}
    *layers, top = choose_cuts(cut_points(backbone), "sweep")
    assert len(layers) == 6 and top == "top"
    assert all(abs(points[name] - (n + 1) / 7) < 0.05 for n, name in enumerate(layers))


@given(
    depths=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40).map(sorted),
    share=st.floats(0.0, 1.0),
)
def test_any_number_of_cuts_gives_as_many_in_order(depths: list[float], share: float) -> None:
    points = [CutPoint(f"layer.{n}", (1,), depth) for n, depth in enumerate(depths)]
    number = max(1, round(share * len(points)))
    *chosen, top = choose_cuts(points, number)
    positions = [int(name.removeprefix("layer.")) for name in chosen]
    assert top == "top" and len(set(positions)) == number and positions == sorted(positions)


@pytest.mark.parametrize("wanted", [12, 100])
def test_more_cuts_than_there_are_layers_are_refused(wanted: int) -> None:
    with pytest.raises(EdgetlError, match=rf"asks for {wanted} layer cuts, this network can be cut at 11 layers"):
        choose_cuts(POINTS, wanted)


def test_a_sweep_of_a_network_without_cuts_is_refused() -> None:
    with pytest.raises(EdgetlError, match="can be cut at 0 layers; ask for no more, or leave cut out"):
        choose_cuts((), "sweep")


@pytest.mark.parametrize(
    ("name", "hint"), [("feature.3", r" \(did you mean features\.3\?\)"), ("img", ""), ("images ", r".*images\?")]
)
def test_a_name_that_is_no_cut_is_refused_with_the_names_that_are(name: str, hint: str) -> None:
    reason = rf"backbone\.cut names '{name}', where the network cannot be cut{hint}.*features\.0, .*, images, top"
    with pytest.raises(EdgetlError, match=reason) as error:
        choose_cuts(POINTS, (name, "top"))
    assert "\n" not in str(error.value)


def test_a_network_that_cannot_be_traced_is_refused_with_what_to_do() -> None:
    backbone = copy.deepcopy(_load("edgetl/nano"))
    backbone.trunk.backbone = _Deciding(backbone.trunk.backbone)
    for cut in (lambda: cut_points(backbone), lambda: split(backbone, "images")):
        with pytest.raises(
            EdgetlError, match=r"edgetl/nano cannot be cut .*torch\.fx.*leave backbone\.cut out"
        ) as error:
            cut()
        assert "\n" not in str(error.value)
    lower, upper = split(backbone, "top")
    assert lower is backbone.trunk and isinstance(upper, nn.Identity)


class _Deciding(nn.Module):
    """Goes one way or the other with the values of its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images if images.mean() > 0 else -images)
        return features


@functools.cache
def _load(name: str) -> Backbone:
    """Loaded once: no test changes a trunk."""
    return load_backbone(config.BackboneSettings(name=name, weights=None, image_size=SIZES[name]), Path(), seed=0)


def _images(backbone: Backbone) -> Tensor:
    size = backbone.preprocessing.width
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def _multiply_adds(network: nn.Module, backbone: Backbone) -> int:
    """Counted by hooks, from the weights and the number of positions that they are applied to."""
    total = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += output.numel() // output.shape[1 if isinstance(module, nn.Conv2d) else -1] * weight.numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [module.register_forward_hook(count) for module in layers]
    with torch.no_grad():
        network(_images(backbone)[:1])
    for handle in handles:
        handle.remove()
    return total
