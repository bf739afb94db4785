"""Every section and option against OpenCV's Darknet reader; what that does not read, against Darknet's definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from numpy.typing import NDArray  # noqa: E402
from torch import Tensor  # noqa: E402

from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.darknet.network import strip_classifier, strip_detection_layers  # noqa: E402
from edgetl.train.load_weights import load_into  # noqa: E402
from tests.darknet_weights import write_weights  # noqa: E402

Array = NDArray[np.float32]
Written = Callable[[str], Any]
Pictures = Callable[[int, int, int], Tensor]
Outputs = Callable[[Any, Tensor], list[Array]]

NEAR = 1e-5


def net(height: int = 24, width: int = 24) -> str:
    return f"[net]\nwidth={width}\nheight={height}\nchannels=3\n"


def conv(filters: int = 8, size: int = 3, activation: str = "leaky", **options: int) -> str:
    values = {"pad": 1, "stride": 1, "batch_normalize": 1, **options}
    more = "".join(f"{key}={value}\n" for key, value in values.items())
    return f"[convolutional]\nfilters={filters}\nsize={size}\n{more}activation={activation}\n"


def section(name: str, **options: object) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())


def yolo(classes: int = 1, **options: object) -> str:
    """Two anchors, and the convolution under them."""
    ending = conv(2 * (5 + classes), size=1, activation="linear", batch_normalize=0)
    more = {"mask": "0,2", "anchors": "4,5, 6,7, 8,9.5", "num": 3, "classes": classes, **options}
    return ending + section("yolo", **more)


ROUTED = conv(8) + conv(4, stride=2) + section("upsample", stride=2) + section("route", layers="-1,0")

SECTIONS = {
    "linear": conv(activation="linear"),
    "leaky": conv(activation="leaky"),
    "relu": conv(activation="relu"),
    "mish": conv(activation="mish"),
    "swish": conv(activation="swish"),
    "logistic": conv(activation="logistic"),
    "tanh": conv(activation="tanh"),
    "bias": conv(batch_normalize=0),
    "stride": conv(stride=2),
    "large kernel": conv(size=5),
    "even kernel": conv(size=2),
    "no padding": conv(pad=0),
    "padding": conv(pad=0, padding=2),
    "padding that pad overrides": conv(pad=1, padding=3),
    "one by one": conv(size=1),
    "groups": conv(8) + conv(12, groups=4),
    "depthwise": conv(8) + conv(8, groups=8, stride=2),
    "maxpool": conv() + section("maxpool", size=2, stride=2),
    "maxpool 2/1": conv() + section("maxpool", size=2, stride=1),
    "maxpool 3/2": conv() + section("maxpool", size=3, stride=2),
    "maxpool 4/2": conv() + section("maxpool", size=4, stride=2),
    "maxpool 4/4": conv() + section("maxpool", size=4, stride=4),
    "maxpool 4/3": conv() + section("maxpool", size=4, stride=3),
    "maxpool unpadded": conv() + section("maxpool", size=3, stride=2, padding=0),
    "maxpool padded by one": conv() + section("maxpool", size=3, stride=2, padding=1),
    "pyramid": conv()
    + section("maxpool", stride=1, size=5)
    + section("route", layers=-2)
    + section("maxpool", stride=1, size=9)
    + section("route", layers=-4)
    + section("maxpool", stride=1, size=13)
    + section("route", layers="-1,-3,-5,-6"),
    "route": ROUTED,
    "route of groups": conv(8) + section("route", layers=-1, groups=2, group_id=1),
    "shortcut": conv() + conv() + section("shortcut", **{"from": -2, "activation": "linear"}),
    "shortcut activated": conv() + conv() + section("shortcut", **{"from": 0, "activation": "leaky"}),
    "shortcut of fewer channels": conv(4) + conv(8) + section("shortcut", **{"from": -2, "activation": "linear"}),
    "shortcut of more channels": conv(8) + conv(4) + section("shortcut", **{"from": -2, "activation": "linear"}),
    "upsample": conv() + section("upsample", stride=3),
    "reorg": conv(8) + section("reorg", stride=2),
    "dropout": conv() + section("dropout", probability=0.5) + conv(4),
    "sam": conv() + conv(activation="logistic") + section("sam", **{"from": -2}),
    "scale_channels": conv() + section("avgpool") + section("scale_channels", **{"from": -2, "activation": "linear"}),
    "squeeze and excite": conv()
    + section("avgpool")
    + conv(4, size=1, activation="relu", batch_normalize=0)
    + conv(8, size=1, activation="logistic", batch_normalize=0)
    + section("scale_channels", **{"from": 0}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name in SECTIONS for side in (24, 22 if name in {"reorg", "route"} else 21)]
)
def test_a_section_gives_what_it_gives_in_opencv(name: str, side: int, written: Written, pictures: Pictures) -> None:
    files = written(net(side, side) + SECTIONS[name] + yolo())
    assert files.difference(files.seeded(), pictures(3, side, side)) < NEAR


def test_variances_next_to_nothing_count_as_in_opencv(written: Written, pictures: Pictures) -> None:
    """Channels that training switched off have them; what is added inside the root is then most of it."""
    files = written(net() + conv() + yolo())
    network = files.seeded()
    network.layers[0].norm.running_var[::2] = 1e-6
    network.layers[0].norm.weight[::2] = 1e-3
    write_weights(files.weights, network)
    assert files.difference(network, pictures(2, 24, 24)) < NEAR


def test_images_need_not_be_square(written: Written, pictures: Pictures) -> None:
    files = written(net(16, 32) + conv(stride=2) + section("maxpool", size=2, stride=1) + yolo())
    network = files.seeded()
    assert (network.width, network.height) == (32, 16)
    assert files.difference(network, pictures(2, 16, 32)) < NEAR


def test_images_need_not_have_the_size_of_the_cfg(written: Written, pictures: Pictures, outputs: Outputs) -> None:
    """Darknet resizes its networks; here the weights of one size are those of another."""
    body = conv(stride=2) + section("maxpool", size=2, stride=2) + conv(16) + section("reorg", stride=2) + yolo()
    small, images = written(net(24, 24) + body).seeded(), pictures(2, 40, 48)
    files = written(net(40, 48) + body)
    assert files.difference(small, images) < NEAR


def test_two_scales_with_a_scale_x_y_and_new_coords(written: Written, pictures: Pictures) -> None:
    first = yolo(2, mask="1,2", scale_x_y=1.05)
    ending = conv(14, size=1, activation="logistic", batch_normalize=0)
    anchors = {"anchors": "4,5, 6,7, 8,9.5", "num": 3, "mask": "0,1"}
    second = ending + section("yolo", **anchors, classes=2, scale_x_y="2.0", new_coords=1)
    text = net() + conv(stride=2) + conv(stride=2) + first + section("route", layers=1) + conv() + second
    files = written(text)
    network = files.seeded()
    assert files.difference(network, pictures(2, 24, 24)) < NEAR
    one, two = network.detection_layers
    assert (one.path, one.classes, one.scale.anchors) == ("layers.2", 2, ((6.0, 7.0), (8.0, 9.5)))
    assert (one.scale.scale_xy, one.scale.activated, one.scale.softmax) == (1.05, False, False)
    assert (two.path, two.classes, two.scale.anchors) == ("layers.6", 2, ((4.0, 5.0), (6.0, 7.0)))
    assert (two.scale.scale_xy, two.scale.activated, two.scale.softmax) == (2.0, True, False)


def test_anchors_of_a_region_are_counted_in_cells(written: Written, pictures: Pictures) -> None:
    ending = conv(14, size=1, activation="linear", batch_normalize=0)
    region = section("region", anchors="0.5,1, 2,3.25", num=2, classes=2, coords=4, softmax=1)
    files = written(net(32, 64) + conv(stride=2) + conv(stride=2) + conv(stride=2) + ending + region)
    network = files.seeded()
    assert files.difference(network, pictures(2, 32, 64)) < NEAR
    (found,) = network.detection_layers
    assert found.scale.anchors == ((4.0, 8.0), (16.0, 26.0)) and found.scale.softmax


@pytest.mark.parametrize(
    "top",
    [
        conv(10, size=1, activation="linear", batch_normalize=0) + "[avgpool]\n[softmax]\n",
        "[avgpool]\n" + conv(10, size=1, activation="linear", batch_normalize=0) + "[softmax]\ngroups=1\n",
        "[avgpool]\n[dropout]\n" + conv(10, size=1, activation="linear", batch_normalize=0) + "[softmax]\n[cost]\n",
    ],
)
def test_a_classifier_gives_scores_that_add_up_to_one(
    top: str, written: Written, pictures: Pictures, outputs: Outputs
) -> None:
    files = written(net() + conv(stride=2) + conv(16) + top)
    network, images = files.seeded(), pictures(3, 24, 24)
    (scores,) = outputs(network, images)
    assert scores.shape == (3, 10) and network.detection_layers == ()
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert files.difference(network, images) < NEAR


# What OpenCV's reader ignores or refuses: written out from the loops of Darknet's sources


def test_kernels_are_dilated_and_their_padding_with_them(written: Written, pictures: Pictures) -> None:
    """im2col_cpu_ext is called with pad * dilation."""
    text = net(9, 9) + conv(4, dilation=2, activation="linear", batch_normalize=0) + yolo()
    _, (module, images, found) = _layer(written(text), pictures)
    expected = _convolved(images, module, strides=(1, 1), padding=2, dilation=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_strides_may_differ_by_axis(written: Written, pictures: Pictures) -> None:
    text = net(9, 10) + conv(4, stride_x=3, stride_y=2, activation="linear", batch_normalize=0) + yolo()
    _, (module, images, found) = _layer(written(text), pictures)
    np.testing.assert_allclose(found, _convolved(images, module, (2, 3), padding=1, dilation=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("name", "reduce"), [("maxpool", np.max), ("local_avgpool", np.mean)])
def test_pooling_leaves_out_what_lies_outside(
    name: str, reduce: Callable[[Array], float], size: int, written: Written, pictures: Pictures
) -> None:
    """forward_maxpool_layer and forward_local_avgpool_layer: windows begin half of the padding outside."""
    padding = (size - 1) // 2 * 2 if name == "local_avgpool" else size - 1
    pool = section(name, size=size, stride_x=2, stride_y=1, padding=padding)
    network, _ = _layer(written(net(9, 8) + conv(4) + pool + yolo()), pictures)
    images = pictures(2, 9, 8)
    maps, found = _values(network, images, 0), _values(network, images, 1)
    height, width = 9 + padding - size + 1, (8 + padding - size) // 2 + 1
    assert found.shape == (2, 4, height, width)
    for row in range(height):
        for column in range(width):
            top, left = row - padding // 2, column * 2 - padding // 2
            window = maps[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
            expected = np.array([[reduce(channel) for channel in image] for image in window])
            np.testing.assert_allclose(found[:, :, row, column], expected, rtol=1e-5, atol=1e-6)


def test_a_route_takes_its_group_of_every_layer(written: Written, pictures: Pictures) -> None:
    """forward_route_layer; where there are several, OpenCV gives the weights behind them to other layers."""
    text = net() + conv(9) + conv(6) + section("route", layers="-1,0", groups=3, group_id=1) + yolo()
    network, _ = _layer(written(text), pictures)
    first, second, found = (_values(network, pictures(2, 24, 24), number) for number in range(3))
    np.testing.assert_array_equal(found, np.concatenate([second[:, 2:4], first[:, 3:6]], axis=1))


def test_a_shortcut_adds_several_layers(written: Written, pictures: Pictures) -> None:
    """shortcut_multilayer_cpu, where OpenCV adds the first one alone."""
    text = net() + conv(8) + conv(12) + conv(8) + section("shortcut", **{"from": "-2,0", "activation": "relu"}) + yolo()
    network, _ = _layer(written(text), pictures)
    first, second, third, found = (_values(network, pictures(2, 24, 24), number) for number in range(4))
    np.testing.assert_allclose(found, np.maximum(third + second[:, :8] + first, 0), rtol=1e-5, atol=1e-6)


def test_upsampled_values_may_be_scaled(written: Written, pictures: Pictures) -> None:
    """upsample_cpu; OpenCV ignores the option."""
    network, _ = _layer(written(net(8, 8) + conv() + section("upsample", stride=2, scale=0.25) + yolo()), pictures)
    maps, found = (_values(network, pictures(2, 8, 8), number) for number in range(2))
    np.testing.assert_array_equal(found, maps.repeat(2, axis=2).repeat(2, axis=3) * np.float32(0.25))


def test_places_may_be_scaled_instead_of_channels(written: Written, pictures: Pictures) -> None:
    """scale_wh of forward_scale_channels_layer, which OpenCV cannot run."""
    scale = section("scale_channels", **{"from": 0, "scale_wh": 1, "activation": "relu"})
    network, _ = _layer(written(net() + conv() + conv(1, size=1) + scale + yolo()), pictures)
    maps, place, found = (_values(network, pictures(2, 24, 24), number) for number in range(3))
    assert place.shape == (2, 1, 24, 24)
    np.testing.assert_allclose(found, np.maximum(maps * place, 0), rtol=1e-6)


def _elu(values: Array) -> Array:
    return np.where(values >= 0, values, np.expm1(np.minimum(values, 0))).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("activation=relu6", lambda values: np.clip(values, 0, 6)),
        ("activation=elu", _elu),
        ("#activation", lambda values: 1 / (1 + np.exp(-values))),
    ],
)
def test_activations_that_opencv_does_not_have(
    activation: str, expected: Callable[[Array], Array], written: Written, pictures: Pictures
) -> None:
    """A convolutional section that names none has a logistic one (parse_convolutional)."""
    text = net() + conv(activation="@").replace("activation=@", activation) + yolo()
    network, _ = _layer(written(text), pictures)
    images, layer = 4 * pictures(2, 24, 24), network.layers[0]
    with torch.inference_mode():
        linear = layer.norm(layer.conv(images)).numpy()
    assert linear.min() < -1 and linear.max() > 6
    np.testing.assert_allclose(_values(network, images, 0), expected(linear), rtol=1e-5, atol=1e-6)


# Taking the top off

DETECTOR = net() + conv(stride=2) + conv(12) + yolo(2) + section("route", layers=0) + conv(6) + yolo(2)


def test_a_detector_without_endings_gives_their_input(written: Written, pictures: Pictures, outputs: Outputs) -> None:
    network, images = written(DETECTOR).seeded(), pictures(2, 24, 24)
    whole = outputs(network, images)
    convolutions = strip_detection_layers(network)
    maps = outputs(network, images)
    assert [one.shape for one in maps] == [(2, 12, 12, 12), (2, 6, 12, 12)]
    assert [type(one) for one in convolutions] == [torch.nn.Conv2d] * 2
    with torch.inference_mode():
        again = [one(torch.from_numpy(read)).numpy() for one, read in zip(convolutions, maps, strict=True)]
    for raw, expected in zip(again, whole, strict=True):
        np.testing.assert_array_equal(raw, expected)


def test_the_paths_of_endings_are_those_of_their_convolutions(written: Written) -> None:
    network = written(DETECTOR).seeded()
    paths = [ending.path for ending in network.detection_layers]
    assert paths == ["layers.2", "layers.6"]
    found = [network.get_submodule(path).conv for path in paths]
    assert [id(one) for one in found] == [id(one) for one in strip_detection_layers(network)]


@pytest.mark.parametrize(
    ("ending", "fault"),
    [
        (yolo().replace("batch_normalize=0", "batch_normalize=1"), "line 12: layer 1 [convolutional] has batch norm"),
        (yolo().replace("activation=linear", "activation=leaky"), "layer 1 [convolutional] has leaky as activation"),
        (yolo(new_coords=1), "has linear as activation"),
        (yolo().replace("batch_normalize=0", "batch_normalize=0\ngroups=2"), "has 2 groups"),
        (yolo() + section("route", layers=1) + yolo(), "has other layers that read it"),
    ],
)
def test_endings_that_are_more_than_a_convolution_stay_on(ending: str, fault: str, written: Written) -> None:
    network = written(net() + conv() + ending).seeded()
    before = [type(module) for module in network.layers]
    with pytest.raises(EdgetlError) as error:
        strip_detection_layers(network)
    assert fault in str(error.value) and "\n" not in str(error.value)
    assert [type(module) for module in network.layers] == before


CLASSIFIER = net() + conv(stride=2) + conv(16) + "{}[softmax]\n"
LINEAR = conv(10, size=1, activation="linear", batch_normalize=0)


@pytest.mark.parametrize("top", [LINEAR + "[avgpool]\n", "[avgpool]\n" + LINEAR, "[avgpool]\n[dropout]\n" + LINEAR])
def test_a_bare_network_gives_features(top: str, written: Written, pictures: Pictures, outputs: Outputs) -> None:
    network, images = written(CLASSIFIER.format(top)).seeded(), pictures(3, 24, 24)
    (scores,) = outputs(network, images)
    removed = f"layers.{network.cfg.convolutions[-1].section.number}"
    last = network.get_submodule(removed).conv
    tensors = network.state_dict()
    assert strip_classifier(network) == (removed,)
    (features,) = outputs(network, images)
    assert features.shape == (3, 16)
    with torch.inference_mode():
        again = last(torch.from_numpy(features)[:, :, None, None]).flatten(1).softmax(1).numpy()
    np.testing.assert_allclose(again, scores, rtol=1e-4, atol=1e-6)
    load_into(network, tensors, (removed,), "the trunk", "the whole network")  # as backbones do


def test_a_detector_has_no_classifier_to_take_off(written: Written) -> None:
    with pytest.raises(EdgetlError, match="is no classifier"):
        strip_classifier(written(DETECTOR).seeded())


def test_networks_are_frozen_and_stay_in_evaluation_mode_when_built(written: Written) -> None:
    network = written(DETECTOR).seeded()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def _layer(files: Any, pictures: Pictures) -> tuple[Any, tuple[Any, Array, Array]]:
    """The network; and its first convolution, some images, and what that layer makes of them."""
    network = files.seeded()
    images = pictures(2, network.height, network.width)
    return network, (network.layers[0].conv, images.numpy(), _values(network, images, 0))


def _values(network: Any, images: Tensor, number: int) -> Array:
    """What a layer gives in a run of the whole network."""
    found: list[Tensor] = []
    hook = network.layers[number].register_forward_hook(lambda *run: found.append(run[2]))
    with torch.inference_mode():
        network(images)
    hook.remove()
    return found[0].numpy()


def _convolved(images: Array, module: Any, strides: tuple[int, int], padding: int, dilation: int) -> Array:
    """Convolution as a loop over its output."""
    kernels, bias = module.weight.numpy(), module.bias.numpy()
    size = kernels.shape[2]
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = dilation * (size - 1) + 1
    height, width = ((side - reach) // stride + 1 for side, stride in zip(padded.shape[2:], strides, strict=True))
    result = np.empty((len(images), len(kernels), height, width), dtype=np.float32)
    for row in range(height):
        for column in range(width):
            top, left = row * strides[0], column * strides[1]
            window = padded[:, :, top : top + reach : dilation, left : left + reach : dilation]
            result[:, :, row, column] = np.einsum("ncij,fcij->nf", window, kernels) + bias
    return result
