from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Callable[[], object]]:
    """Makes a call that runs a network of so many convolutions on ONNX Runtime, on one thread."""
    folder: Path = tmp_path_factory.mktemp("networks")

    def make(layers: int) -> Callable[[], object]:
        random = np.random.default_rng(0)
        kernel = numpy_helper.from_array(random.normal(0.0, 0.05, (16, 16, 3, 3)).astype(np.float32), "kernel")
        names = ["images", *(f"layer{number}" for number in range(layers))]
        nodes = [
            helper.make_node("Conv", [before, "kernel"], [after], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            for before, after in pairwise(names)
        ]
        shape = [1, 16, 32, 32]
        tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (names[0], names[-1])]
        graph = helper.make_graph(nodes, "network", tensors[:1], tensors[1:], [kernel])
        path = folder / f"{layers}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        loaded = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        images = random.random(shape, dtype=np.float32)
        return lambda: loaded.run(None, {"images": images})

    return make
