"""Tiny graphs in the shape that edgetl exports, made by script, and images for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import IMAGES
from edgetl.artifacts.calibration_table import CalibrationImage, CalibrationTable
from edgetl.config import CalibrationMethod, CalibrationRecipe
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.observe import Observer
from tests.calibrating import calibrate

SIZE = 16


class Sketch:
    """A graph under construction: normalisation is there, each method adds a layer and returns its output."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        centred = self.node("Sub", ["images", self.constant(np.full((1, 3, 1, 1), 0.45))])
        self.start = self.node("Div", [centred, self.constant(np.full((1, 3, 1, 1), 0.25))])

    def constant(self, value: NDArray[np.float64]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def conv(self, tensor: str, inputs: int, outputs: int, groups: int = 1) -> str:
        shape = (outputs, inputs // groups, 3, 3)
        weight = self.constant(self.random.normal(0.0, (2.0 / (9 * inputs / groups)) ** 0.5, shape))
        bias = self.constant(self.random.normal(0.0, 0.1, outputs))
        return self.node("Conv", [tensor, weight, bias], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=groups)

    def relu6(self, tensor: str) -> str:
        return self.node("Clip", [tensor, self.constant(np.array(0.0)), self.constant(np.array(6.0))])

    def features(self, tensor: str) -> str:
        return self.node("Flatten", [self.node("GlobalAveragePool", [tensor])], output="features")

    def gemm(self, tensor: str, inputs: int, outputs: int) -> str:
        weight = self.constant(self.random.normal(0.0, (1.0 / inputs) ** 0.5, (outputs, inputs)))
        return self.node("Gemm", [tensor, weight, self.constant(np.zeros(outputs))], transB=1)

    def head(self, name: str, tensor: str, inputs: int, classes: int = 3, activation: str = "Softmax") -> None:
        self.node(activation, [self.gemm(tensor, inputs, classes)], output=name)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", classes]))

    def chain(self, layers: list[str]) -> onnx.ModelProto:
        """A network of a Conv, the layers named (conv, relu, relu6, pool, add) and a head."""
        tensor = self.conv(self.start, 3, 4)
        for layer in layers:
            if layer == "add":
                tensor = self.node("Add", [self.conv(tensor, 4, 4), tensor])
            elif layer == "conv":
                tensor = self.conv(tensor, 4, 4)
            elif layer == "pool":
                tensor = self.node("MaxPool", [tensor], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            else:
                tensor = self.relu6(tensor) if layer == "relu6" else self.node("Relu", [tensor])
        self.head("vehicles", self.features(tensor), 4)
        return self.model()

    def model(self, opset: int = 17) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        graph = helper.make_graph(self.nodes, "sketch", [images], self.outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        helper.set_model_props(model, {"edgetl.labels": '{"vehicles": ["car"]}'})
        onnx.checker.check_model(model)
        return model


def residual_network() -> onnx.ModelProto:
    """Conv-Relu, MaxPool, a residual block, an inverted residual with Relu6 and depthwise Conv, Concat, two heads."""
    sketch = Sketch()
    stem = sketch.node("Relu", [sketch.conv(sketch.start, 3, 8)])
    stem = sketch.node("MaxPool", [stem], kernel_shape=[2, 2], strides=[2, 2])
    inner = sketch.node("Relu", [sketch.conv(stem, 8, 8)])
    block = sketch.node("Relu", [sketch.node("Add", [sketch.conv(inner, 8, 8), stem])])
    wide = sketch.relu6(sketch.conv(block, 8, 16))
    deep = sketch.relu6(sketch.conv(wide, 16, 16, groups=16))
    linear = sketch.node("Add", [block, sketch.conv(deep, 16, 8)])
    both = sketch.node("Concat", [linear, block], axis=1)
    features = sketch.features(sketch.node("Relu", [sketch.conv(both, 16, 12)]))
    sketch.head("vehicles", features, 12)
    sketch.head("signs", features, 12, classes=4, activation="Sigmoid")
    return sketch.model()


def smooth_images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random images without noise, float32 [count, 3, SIZE, SIZE] in [0, 1]."""
    coarse = np.random.default_rng(seed).random((count, 3, SIZE // 4, SIZE // 4))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.float32)


def image_record(count: int) -> tuple[CalibrationImage, ...]:
    return tuple(CalibrationImage(path=f"{index}.png", sha256=f"{index:064x}") for index in range(count))


def calibrated(model: onnx.ModelProto, method: CalibrationMethod = "max", count: int = 8) -> CalibrationTable:
    return calibrate(model, [smooth_images(count)], CalibrationRecipe(method=method), image_record(count))


# Tests have no package to import from, so helpers come as fixtures.
@pytest.fixture(scope="session")
def network() -> onnx.ModelProto:
    return residual_network()


@pytest.fixture(scope="session")
def sketch() -> type[Sketch]:
    return Sketch


@pytest.fixture(scope="session")
def images() -> Callable[..., NDArray[np.float32]]:
    return smooth_images


@pytest.fixture(scope="session")
def record() -> Callable[[int], tuple[CalibrationImage, ...]]:
    return image_record


@pytest.fixture(scope="session")
def table_for() -> Callable[..., CalibrationTable]:
    return calibrated


@pytest.fixture
def forest() -> onnx.ModelProto:
    """A trunk of two convolutions, a branch above the first, one from the images, and a head's truncated network."""

    def network(first: int, second: int | None) -> onnx.ModelProto:
        weights = {"one": (4, 3, 3, 3, first), "two": (6, 4, 3, 3, second)}
        kept = {name: shape for name, shape in weights.items() if shape[-1] is not None}
        nodes = [helper.make_node("Conv", [IMAGES, "one"], ["conv1"]), helper.make_node("Relu", ["conv1"], ["cut"])]
        if second is not None:
            nodes += [helper.make_node("Conv", ["cut", "two"], ["conv2"]), helper.make_node("Relu", ["conv2"], ["top"])]
        nodes += [
            helper.make_node("GlobalAveragePool", ["cut" if second is None else "top"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
        ]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4 if second is None else 6])],
            [
                numpy_helper.from_array(np.random.default_rng(seed).normal(0.0, 0.5, shape).astype(np.float32), name)
                for name, (*shape, seed) in kept.items()
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    networks = {"trunk": network(0, 1), "tuned": network(0, 2), "from images": network(3, 2)}
    networks |= {"untuned": network(0, 1), "truncated": network(0, None)}
    return fuse(networks).model


@pytest.fixture
def judging() -> Callable[[onnx.ModelProto, NDArray[np.float32]], NDArray[np.float32]]:
    """Those of some calibration images that methods are judged on."""

    def judging(model: onnx.ModelProto, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        observer = Observer(model)
        return observer.observation(observer.add(pictures)).probe_images

    return judging
