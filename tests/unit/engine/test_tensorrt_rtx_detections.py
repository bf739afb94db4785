"""Detectors with their suppression in the graph, built for GPUs that are not here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.predictions import NmsImplementation
from edgetl.config import CalibrationRecipe, NmsSettings
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.detection_postprocessing import RawHead, with_detections
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")

RTX = get_runtime("tensorrt-rtx")
LABELS = ("car", "bus", "stop")
SIDE = 32


def detector(form: NmsImplementation, precision: str = "fp32") -> onnx.ModelProto:
    """Two heads of two scales each, on one layer."""
    random = np.random.default_rng(0)
    raws = {f"{name}/{number}": stride for name in ("vehicles", "signs") for number, stride in enumerate((8, 16))}
    weights = {raw: random.normal(0.0, 0.2, (2 * (5 + len(LABELS)), 4, s, s)) for raw, s in raws.items()}
    weights["stem"] = random.normal(0.0, 0.5, (4, 3, 3, 3))
    nodes = [
        helper.make_node("Conv", ["images", "weight/stem"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        *(helper.make_node("Conv", ["relu", f"weight/{r}"], [r], strides=[s, s]) for r, s in raws.items()),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(r, TensorProto.FLOAT, ["N", len(weights[r]), SIDE // s, SIDE // s])
            for r, s in raws.items()
        ],
        [numpy_helper.from_array(value.astype(np.float32), f"weight/{name}") for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if precision == "fp16":
        model = to_fp16(model)
    elif precision == "int8":
        images = random.random((2, 3, SIDE, SIDE), dtype=np.float32)
        record = tuple(CalibrationImage(path=str(n), sha256="") for n in range(len(images)))
        model = quantize(model, calibrate(model, [images], CalibrationRecipe(), record), "tensorrt")
    scales = tuple(YoloScale(anchors=anchors) for anchors in (((6.0, 5.0), (10.0, 14.0)), ((20.0, 18.0), (40.0, 30.0))))
    heads = [RawHead(name, LABELS, scales, (f"{name}/0", f"{name}/1")) for name in ("vehicles", "signs")]
    return with_detections(model, heads, Preprocessing(width=SIDE, height=SIDE, fit="letterbox"), NmsSettings(), form)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "precision"), [("loop", "fp32"), ("loop", "fp16"), ("loop", "int8"), ("none", "fp32")]
)
def test_detectors_build_with_a_loop_or_without_suppression(
    form: NmsImplementation, precision: str, tmp_path: Path
) -> None:
    graph, engine = tmp_path / "detector.onnx", tmp_path / "detector.engine"
    onnx.save(detector(form, precision), graph)
    assert build_engine(RTX, graph, engine, BuildOptions(compute_capability="SM86"))
    assert read_manifest(engine).bytes == engine.stat().st_size > 0


def test_the_operator_that_it_does_not_have_is_refused(tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 reads NonMaxSuppression and has nothing that computes it: hence the loop."""
    graph, engine = tmp_path / "detector.onnx", tmp_path / "detector.engine"
    onnx.save(detector("operator"), graph)
    with pytest.raises(EdgetlError, match="NonMaxSuppression") as caught:
        build_engine(RTX, graph, engine, BuildOptions(compute_capability="SM86"))
    assert "\n" not in str(caught.value) and not engine.exists()
