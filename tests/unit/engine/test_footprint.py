from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.engine.footprint import footprint
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime
from edgetl.errors import EdgetlError

SIZE = 16
INPUTS = 3 * SIZE * SIZE


def heavy_engine(path: Path, megabytes: int) -> Path:
    """One linear layer with so many MiB of weights."""
    weight = np.random.default_rng(0).random((INPUTS, megabytes * 2**20 // (4 * INPUTS)), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["combined"])],
        "heavy",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("combined", TensorProto.FLOAT, ["N", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path.with_suffix(".graph"), format="protobuf")
    build_engine(get_runtime("onnxruntime"), path.with_suffix(".graph"), path, BuildOptions())
    return path


@pytest.mark.slow
def test_memory_grows_with_the_weights_of_every_engine(tmp_path: Path) -> None:
    one, other = heavy_engine(tmp_path / "one.onnx", 32), heavy_engine(tmp_path / "other.onnx", 33)
    alone = footprint([one], "onnxruntime").process_mb
    both = footprint([one, other], "onnxruntime").process_mb
    assert alone is not None and both is not None and alone >= 32.0
    assert both - alone >= 25.0, "the second engine's weights come on top"


def test_a_processors_engine_holds_nothing_on_a_gpu_and_says_so(tmp_path: Path) -> None:
    memory = footprint([heavy_engine(tmp_path / "one.onnx", 1)], "onnxruntime")
    assert memory.device_mb is None and memory.shared is None
    assert memory.reason == "the engines run on the processor"
    assert memory.system_mb is not None


def test_the_libraries_of_the_runtime_do_not_count(graph: Path, tmp_path: Path) -> None:
    engine = tmp_path / "tiny.onnx"
    build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
    assert 0.0 <= (footprint([engine], "onnxruntime").process_mb or 0.0) < 20.0


def test_an_engine_that_starts_from_several_tensors_is_measured_too(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("features", "combined")]
    output = helper.make_tensor_value_info("signs", TensorProto.FLOAT, ["N", 8])
    both = helper.make_node("Concat", ["features", "combined"], ["signs"], axis=1)
    graph = helper.make_graph([both], "second", values, [output])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "second.graph"
    )
    build_engine(get_runtime("onnxruntime"), tmp_path / "second.graph", tmp_path / "second.onnx", BuildOptions())
    assert 0.0 <= (footprint([tmp_path / "second.onnx"], "onnxruntime").process_mb or 0.0) < 20.0


def test_a_process_that_fails_hands_on_its_reason(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"measures memory failed: .*none\.onnx does not exist"):
        footprint([tmp_path / "none.onnx"], "onnxruntime")
