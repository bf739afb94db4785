"""A tiny bundle of detectors: heads on a frozen trunk, tuned ones, and a second level, all in one graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.box_index import Box, BoxedImage, BoxIndex
from edgetl.artifacts.bundle import TOP, BackboneReference, Preprocessing
from edgetl.artifacts.detector_bundle import DetectionBundle, DetectionHead, YoloScale
from edgetl.artifacts.files import write_bytes, write_json
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.graph.detection_postprocessing import RawHead
from edgetl.graph.model import save_model
from edgetl.stages.detect.validation import ValidationDetections

Array = NDArray[np.float32]

WIDTH, HEIGHT, STRIDE = 48, 32, 8
CHANNELS = 6
GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop", "yield", "left")}
LABELS = ("car", "bus", "stop", "yield", "left")
SCALE = YoloScale(anchors=((7.0, 9.0), (14.0, 12.0)))
CUT = "layer1"


@dataclass(frozen=True)
class Trained:
    """What training leaves behind: the networks of all heads as one graph, and what is known of them."""

    network: onnx.ModelProto
    bundle: DetectionBundle

    def head(self, name: str) -> DetectionHead:
        return next(head for head in self.bundle.heads if head.name == name)

    def raw_head(self, name: str) -> RawHead:
        head = self.head(name)
        return RawHead(head.name, head.classes, head.scales, head.raws)

    def write(self, folder: Path, val: Sequence[BoxedImage], found: Mapping[str, Sequence[Array]]) -> None:
        """A run directory up to training: what heads find on the validation images is said here."""
        index = BoxIndex(generated=True, labels=LABELS, train=tuple(val), val=tuple(val), test=tuple(val))
        write_json(RunDirectory(folder).index, index)
        write_json(folder / "bundle" / "bundle.json", self.bundle)
        save_model(self.network, folder / "bundle" / "network.onnx")
        write_bytes(
            folder / "bundle" / "val_detections.npz", ValidationDetections(np.arange(len(val)), dict(found)).to_bytes()
        )


@pytest.fixture(scope="session")
def trained() -> Trained:
    """On one convolution, and tuned on another one; the second level reads the first one's raw outputs beside it."""
    roles = {"combined": LABELS, **GROUPS}
    random = np.random.default_rng(3)
    build = _Build(random)
    build.convolution("images", "trunk", 3, CHANNELS, STRIDE)
    build.convolution("images", "tuned", 3, CHANNELS, STRIDE)
    heads = []
    for role, classes in roles.items():
        for trunk, cut in (("trunk", TOP), ("tuned", CUT)):
            head = _head(role if cut == TOP else f"{role}@{cut}", classes, cut=cut)
            build.raw(f"{trunk}/relu", head, CHANNELS)
            heads.append(head)
    build.concatenation(["trunk/relu", "combined/raw0"], "beside")
    for group, classes in GROUPS.items():
        head = _head(f"{group}@cascade", classes, beside="combined")
        build.raw("beside", head, CHANNELS + len(SCALE.anchors) * (5 + len(LABELS)))
        heads.append(head)
    bundle = DetectionBundle(
        backbone=BackboneReference(
            name="edgetl/nano",
            weights=None,
            fingerprint="0" * 64,
            feature_dim=CHANNELS,
            parameters=1,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        ),
        preprocessing=Preprocessing(width=WIDTH, height=HEIGHT, fit="letterbox"),
        groups=GROUPS,
        heads=tuple(heads),
        data_digest="0" * 64,
    )
    return Trained(build.model(), bundle)


def _head(name: str, classes: tuple[str, ...], cut: str = TOP, beside: str | None = None) -> DetectionHead:
    figures = {"epochs": 1, "val_ap50": 0.5, "untrained_ap50": 0.1}
    return DetectionHead(name=name, classes=classes, scales=(SCALE,), cut=cut, first_level=beside, **figures)


class _Build:
    """A graph, node by node, with weights that make heads fire here and there."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def convolution(self, tensor: str, name: str, channels: int, filters: int, size: int) -> None:
        weights = self._random.normal(0.0, 1.5 / size, (filters, channels, size, size)).astype(np.float32)
        self._weights.append(numpy_helper.from_array(weights, f"{name}/weight"))
        strides = {"strides": [size, size], "kernel_shape": [size, size]}
        self._nodes.append(helper.make_node("Conv", [tensor, f"{name}/weight"], [f"{name}/conv"], name=name, **strides))
        self._nodes.append(helper.make_node("Relu", [f"{name}/conv"], [f"{name}/relu"], name=f"{name}/relu"))

    def raw(self, tensor: str, head: DetectionHead, channels: int) -> None:
        (name,) = head.raws
        filters = len(SCALE.anchors) * (5 + len(head.classes))
        weights = self._random.normal(0.0, 1.2 / channels**0.5, (filters, channels, 1, 1)).astype(np.float32)
        bias = np.tile([0.0, 0.0, 0.0, 0.0, -1.5, *([-1.0] * len(head.classes))], len(SCALE.anchors))
        for value, kind in ((weights, "weight"), (bias.astype(np.float32), "bias")):
            self._weights.append(numpy_helper.from_array(value, f"{name}/{kind}"))
        inputs = [tensor, f"{name}/weight", f"{name}/bias"]
        self._nodes.append(helper.make_node("Conv", inputs, [name], kernel_shape=[1, 1], name=name))
        shape = ["N", filters, HEIGHT // STRIDE, WIDTH // STRIDE]
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def concatenation(self, tensors: list[str], name: str) -> None:
        self._nodes.append(helper.make_node("Concat", tensors, [name], axis=1, name=name))

    def model(self) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
        graph = helper.make_graph(self._nodes, "networks", [images], self._outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _boxed(number: int, *boxes: tuple[str, float, float, float, float]) -> BoxedImage:
    """An image of 100 x 80 pixels with objects; no file is read."""
    drawn = tuple(Box(label=label, x1=x1, y1=y1, x2=x2, y2=y2) for label, x1, y1, x2, y2 in boxes)
    return BoxedImage(path=f"{number}.png", sha256=f"{number:064d}", width=100, height=80, boxes=drawn)


@pytest.fixture(scope="session")
def image() -> Callable[..., BoxedImage]:
    return _boxed
