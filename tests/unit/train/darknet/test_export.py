"""Darknet networks under torch.fx, and as ONNX graphs."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Callable
from typing import Any

import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
import numpy as np  # noqa: E402
from torch import Tensor  # noqa: E402

from edgetl.artifacts.bundle import BackboneReference, Preprocessing  # noqa: E402
from edgetl.train.backbones import Backbone, HeadlessNetwork, Trunk  # noqa: E402
from edgetl.train.cuts import cut_points, split  # noqa: E402
from edgetl.train.darknet.network import strip_classifier, strip_detection_layers  # noqa: E402
from edgetl.train.trace import trace  # noqa: E402

SIDE = 32
BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def conv(filters: int, size: int = 3, activation: str = "leaky", more: str = "batch_normalize=1\n") -> str:
    return f"[convolutional]\n{more}filters={filters}\nsize={size}\nstride=1\npad=1\nactivation={activation}\n"


def down(filters: int, activation: str) -> str:
    return conv(filters, 3, activation).replace("stride=1", "stride=2")


NET = f"[net]\nwidth={SIDE}\nheight={SIDE}\nchannels=3\n"
YOLO = conv(14, 1, "linear", "") + "[yolo]\nmask={}\nanchors=4,5, 6,7, 8,9, 12,14\nnum=4\nclasses=2\n"
V3 = (
    NET
    + down(8, "leaky")  # 0
    + conv(4, 1)  # 1
    + conv(8)  # 2
    + "[shortcut]\nfrom=-3\nactivation=linear\n"  # 3
    + down(16, "leaky")  # 4
    + "[maxpool]\nsize=2\nstride=2\n"  # 5
    + "[maxpool]\nsize=2\nstride=1\n"  # 6
    + conv(12)  # 7
    + YOLO.format("2,3")  # 8, 9
    + "[route]\nlayers=-3\n"  # 10
    + conv(8, 1)  # 11
    + "[upsample]\nstride=2\n"  # 12
    + "[route]\nlayers=-1,4\n"  # 13
    + conv(8)  # 14
    + YOLO.format("0,1")  # 15, 16
)
"""Residual and pyramid, as in YOLOv3 and its tiny version."""
V4 = (
    NET
    + down(8, "mish")  # 0
    + conv(8, 1, "mish")  # 1
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"  # 2
    + conv(4, 3, "swish")  # 3
    + conv(4, 3, "relu6")  # 4
    + "[shortcut]\nfrom=-2\nactivation=relu\n"  # 5
    + "[route]\nlayers=-1,1\n"  # 6
    + down(16, "mish")  # 7
    + "[maxpool]\nsize=5\nstride=1\n"  # 8
    + "[route]\nlayers=-2\n"  # 9
    + "[maxpool]\nsize=9\nstride=1\n"  # 10
    + "[route]\nlayers=-1,-3,-4\n"  # 11
    + conv(16, 1, "leaky")  # 12
    + "[avgpool]\n"  # 13
    + conv(16, 1, "logistic", "")  # 14
    + "[scale_channels]\nfrom=12\n"  # 15
    + YOLO.format("2,3")  # 16, 17
    + "[route]\nlayers=15\n"  # 18
    + down(16, "leaky")  # 19
    + conv(14, 1, "logistic", "")  # 20
    + "[yolo]\nmask=0,1\nanchors=4,5, 6,7\nnum=2\nclasses=2\nnew_coords=1\nscale_x_y=2.0\n"  # 21
)
"""Cross-stage parts, spatial pyramid pooling and new coordinates, as in YOLOv4 and its kin."""
CLASSIFIER = (
    NET
    + down(8, "leaky")
    + down(16, "leaky")
    + conv(8, 1)
    + conv(16)
    + "[shortcut]\nfrom=-3\nactivation=linear\n"
    + "[avgpool]\n"
    + conv(10, 1, "linear", "")
    + "[softmax]\n"
)
OPERATORS = {
    "Add",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Relu",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softplus",
    "Tanh",
}
"""What every runtime knows, fuses and quantises: no shapes are computed, and batch normalisation is folded."""


@pytest.mark.parametrize("text", [V3, V4])
@pytest.mark.parametrize("whole", [True, False])
def test_onnx_runtime_gives_what_pytorch_gives_for_any_batch(
    text: str,
    whole: bool,
    written: Callable[[str], Any],
    pictures: Callable[[int, int, int], Tensor],
    outputs: Callable[[Any, Tensor], list[Any]],
) -> None:
    network = written(text).seeded()
    if not whole:
        strip_detection_layers(network)
    model = _exported(network, pictures(2, SIDE, SIDE))
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for number in (1, 3):
        images = pictures(number, SIDE, SIDE)
        found = session.run(None, {"images": images.numpy()})
        for ours, expected in zip(found, outputs(network, images), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_reorganised_map_is_exported_too(
    written: Callable[[str], Any],
    pictures: Callable[[int, int, int], Tensor],
    outputs: Callable[[Any, Tensor], list[Any]],
) -> None:
    text = NET + conv(8) + "[maxpool]\nsize=4\nstride=4\n[reorg]\nstride=2\n" + YOLO.format("0,1")
    network = written(text).seeded()
    model, images = _exported(network, pictures(2, SIDE, SIDE)), pictures(5, SIDE, SIDE)
    assert {node.op_type for node in model.graph.node} <= OPERATORS | {"Reshape", "Transpose"}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, outputs(network, images)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", [V3, V4])
def test_every_layer_is_one_step_of_the_traced_graph(text: str, written: Callable[[str], Any]) -> None:
    network = written(text).seeded()
    traced = trace(_backbone(network))
    paths = {path for paths in traced.paths.values() for path in paths}
    assert paths == {f"layers.{number}" for number in range(len(network.layers))}


def test_a_classifier_is_cut_between_layers(
    written: Callable[[str], Any], pictures: Callable[[int, int, int], Tensor]
) -> None:
    network = written(CLASSIFIER).seeded()
    assert strip_classifier(network) == ("layers.6",)
    backbone = _backbone(network)
    points = cut_points(backbone)
    # A shortcut from layer 1 leaves no cut inside the block it goes around.
    assert [(point.name, point.shape) for point in points] == [("layers.0", (8, 16, 16)), ("layers.1", (16, 8, 8))]
    images = pictures(2, SIDE, SIDE)
    with torch.inference_mode():
        expected = backbone.trunk(images)
        assert expected.shape == (2, 16)
        for point in points:
            lower, upper = split(backbone, point.name)
            torch.testing.assert_close(upper(lower(images)), expected)


def _backbone(network: Any) -> Backbone:
    trunk = Trunk(HeadlessNetwork(network, (), BLACK, WHITE))
    reference = BackboneReference(
        name="darknet/network.cfg",
        weights=None,
        fingerprint="0" * 64,
        feature_dim=16,
        parameters=1,
        mean=BLACK,
        std=WHITE,
    )
    return Backbone(trunk, reference, Preprocessing.square(SIDE))


def _exported(network: Any, images: Tensor) -> onnx.ModelProto:
    buffer = io.BytesIO()
    names = [f"scale{position}" for position in range(len(network.detection_layers))]
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (images,),
            buffer,
            opset_version=17,
            input_names=["images"],
            output_names=names,
            dynamic_axes={name: {0: "N"} for name in ("images", *names)},
            **options,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model
