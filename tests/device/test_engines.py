"""TensorRT engines on a real GPU: what they compute, side by side, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgetl.artifacts.calibration_table import CalibrationImage
from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.config import CalibrationRecipe
from edgetl.engine.nvidia.cuda import Cuda
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

Load = Callable[..., Any]
Array = NDArray[np.float32]

# TF32 keeps ten bits of mantissa, FP16 as many, INT8 seven; the outputs are probabilities.
TOLERANCE = {"fp32": 5e-3, "fp16": 1e-2, "int8": 5e-2}
INFERENCES, LOADS = 10_000, 100
LEAK = 8 * 2**20
"""Bytes that a driver may keep for itself."""


def reference(graph: Path, images: Array) -> Array:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    result: Array = session.run(["combined"], {"images": images})[0]
    return result


def prepared(graph: Path, precision: str, images: Array) -> Path:
    model, path = onnx.load(graph), graph.with_name(f"combined.{precision}.onnx")
    if precision == "fp16":
        onnx.save(to_fp16(model), path)
    elif precision == "int8":
        record = tuple(CalibrationImage(path=str(n), sha256="") for n in range(len(images)))
        onnx.save(quantize(model, calibrate(model, [images], CalibrationRecipe(), record), "tensorrt"), path)
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("run", [{}, {"cuda_graph": True}, {"scratch": "one"}], ids=["plain", "graph", "scratch"])
def test_an_engine_says_what_onnx_runtime_says(
    load: Load, graph: Path, images: Array, precision: str, run: dict[str, Any]
) -> None:
    with load(prepared(graph, precision, images), **run) as engine:
        for batch in (images, images[:1], images[2:4]):
            found = engine.infer(batch)["combined"]
            np.testing.assert_allclose(found, reference(graph, batch), atol=TOLERANCE[precision])


def test_a_captured_graph_computes_what_the_uncaptured_engine_does(load: Load, images: Array) -> None:
    with load() as plain, load(cuda_graph=True) as captured:
        for _ in range(3):
            np.testing.assert_allclose(
                captured.infer(images)["combined"], plain.infer(images)["combined"], rtol=0.0, atol=1e-6
            )


@pytest.mark.parametrize("scratch", [None, "one"])
def test_one_thread_runs_engines_on_three_streams(load: Load, graph: Path, images: Array, scratch: str | None) -> None:
    engines = [load(scratch=scratch) for _ in range(3)]
    for _ in range(50):
        pending = [engine.start(images[n : n + 1]) for n, engine in enumerate(engines)]
        for n, one in enumerate(pending):
            expected = reference(graph, images[n : n + 1])
            np.testing.assert_allclose(one.result()["combined"], expected, atol=TOLERANCE["fp32"])
    for engine in engines:
        engine.close()


@pytest.mark.slow
def test_ten_thousand_inferences_leave_nothing(load: Load, images: Array, cuda: Cuda) -> None:
    with load() as engine:
        for _ in range(100):
            engine.infer(images)
        before = free(cuda)
        for _ in range(INFERENCES):
            engine.infer(images)
        assert before - free(cuda) <= LEAK


@pytest.mark.slow
def test_a_hundred_loads_leave_nothing(load: Load, images: Array, cuda: Cuda) -> None:
    for number in range(LOADS):
        with load() as engine:
            engine.infer(images)
        if number == 9:
            before = free(cuda)
    assert before - free(cuda) <= LEAK


def test_torch_and_an_engine_live_in_one_context(load: Load, graph: Path, images: Array) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra train")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    tensor = torch.ones(1000, device="cuda")
    with load() as engine:
        found = engine.infer(images)["combined"]
        assert float((tensor * 2).sum()) == 2000.0
        np.testing.assert_allclose(found, reference(graph, images), atol=TOLERANCE["fp32"])
    assert float(tensor.sum()) == 1000.0


def test_wrong_inputs_are_one_line_and_the_engine_goes_on(load: Load, images: Array) -> None:
    with load() as engine:
        for wrong in (images[:, :2], images.astype(np.float64), np.zeros((1000, 3, 16, 16), np.float32)):
            with pytest.raises(EdgetlError, match="takes images as float32"):
                engine.infer(wrong)
        engine.infer(images)


def test_a_damaged_engine_that_is_trusted_is_one_line(load: Load, tmp_path: Path) -> None:
    load().close()
    for engine in tmp_path.glob("*.engine"):
        content = bytearray(engine.read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        engine.write_bytes(content)
        with pytest.raises(EdgetlError, match="damaged or was replaced"):
            load_engine(engine)
        with pytest.raises(EdgetlError, match=r"cannot load .*build it again"):
            load_engine(engine, trust=True)


def test_the_layers_are_those_of_the_engine(load: Load, graph: Path, images: Array, tmp_path: Path) -> None:
    load(prepared(graph, "fp16", images)).close()
    (engine,) = tmp_path.glob("combined.fp16.*.engine")
    manifest = read_manifest(engine)
    assert manifest.layers_of == "engine" and manifest.layers
    assert "fp16" in {layer.precision for layer in manifest.layers}


def test_a_batch_that_the_memory_does_not_hold_is_one_line(load: Load, graph: Path, tmp_path: Path) -> None:
    load().close()
    (engine,) = tmp_path.glob("*.engine")
    runtime = get_runtime(read_manifest(engine).runtime)
    build_engine(runtime, graph, tmp_path / "large.engine", BuildOptions(max_batch=2**24))
    with pytest.raises(EdgetlError, match=r"large\.engine cannot be loaded"):
        load_engine(tmp_path / "large.engine", run=RunOptions())
    load().close()


def free(cuda: Cuda) -> int:
    with cuda.current():
        return int(cuda.driver.mem_get_info()[0])
