from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.config import CalibrationRecipe
from edgetl.engine.layer_precisions import graph_layers, graph_precisions, graph_tensors, read_structure
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate


@pytest.fixture
def int8(network: onnx.ModelProto, images: NDArray[np.float32]) -> onnx.ModelProto:
    record = tuple(CalibrationImage(path=str(n), sha256="") for n in range(len(images)))
    return quantize(network, calibrate(network, [images], CalibrationRecipe(), record), "tensorrt")


def precisions(model: onnx.ModelProto) -> dict[str, str]:
    return {layer.name: layer.precision for layer in graph_layers(model)}


def test_every_layer_has_its_precision(network: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    names = ["first", "between", "second", "relu", "pool", "flatten", "linear", "softmax"]
    assert precisions(network) == dict.fromkeys(names, "fp32")
    half = precisions(to_fp16(network))
    assert (half["first"], half["second"], half["linear"]) == ("fp16", "fp16", "fp32"), "heads stay"
    assert (precisions(int8)["first"], precisions(int8)["softmax"]) == ("int8", "fp32")


def test_what_is_in_a_graph_is_known(network: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    assert graph_precisions(network) == {"fp32"}
    assert "fp16" in graph_precisions(to_fp16(network))
    assert graph_precisions(int8) >= {"int8", "fp32"}


def test_inputs_and_outputs_are_told(network: onnx.ModelProto) -> None:
    ((images,), (combined,)) = graph_tensors(network)
    assert (images.name, images.type, images.shape) == ("images", "fp32", ("N", 3, 16, 16))
    assert (combined.name, combined.type, combined.shape) == ("combined", "fp32", ("N", 3))


def test_weights_beside_the_file_are_not_needed(network: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(network, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    assert precisions(read_structure(tmp_path / "m.onnx"))["first"] == "fp32"


@pytest.mark.parametrize("content", [b"\x08", b"no model at all", b"\xff" * 40])
def test_what_is_no_graph_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(EdgetlError, match=r"m\.onnx is not an ONNX model or is truncated"):
        read_structure(tmp_path / "m.onnx")
