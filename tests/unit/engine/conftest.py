"""A tiny network in the shape that edgetl exports, and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 16


def cnn(seed: int = 0, batch: int | str = "N", size: int | str = SIZE, op: str = "Relu") -> onnx.ModelProto:
    """Two convolutions with ``op`` behind the first, pooling, and a softmax over three classes."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(0.0, 0.3, (8, 3, 3, 3)),
        "b1": random.normal(0.0, 0.1, 8),
        "w2": random.normal(0.0, 0.2, (8, 8, 3, 3)),
        "b2": random.normal(0.0, 0.1, 8),
        "w3": random.normal(0.0, 1.0, (3, 8)),
        "b3": np.zeros(3),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1", "b1"], ["c1"], name="first", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node(op, ["c1"], ["r1"], name="between"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["logits"], name="linear", transB=1),
        helper.make_node("Softmax", ["logits"], ["combined"], name="softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("combined", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def network() -> onnx.ModelProto:
    return cnn()


@pytest.fixture
def variants() -> dict[str, onnx.ModelProto]:
    """The same network under other conditions."""
    return {
        "other weights": cnn(seed=1),
        "fixed batch of 1": cnn(batch=1),
        "fixed batch of 4": cnn(batch=4),
        "open size": cnn(size="S"),
        "operator that needs a square matrix": cnn(op="Det"),
    }


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((5, 3, SIZE, SIZE), dtype=np.float32)


@pytest.fixture
def graph(tmp_path: Path, network: onnx.ModelProto) -> Path:
    path = tmp_path / "combined.fp32.onnx"
    onnx.save(network, path)
    return path
