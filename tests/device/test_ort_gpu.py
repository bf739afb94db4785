"""ONNX Runtime's GPU providers, where an onnxruntime that has them is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgetl.engine.nvidia.device import CudaDevice
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine


@pytest.mark.parametrize(
    ("name", "provider"),
    [("onnxruntime-cuda", "CUDAExecutionProvider"), ("onnxruntime-tensorrt", "TensorrtExecutionProvider")],
)
def test_the_provider_says_what_the_cpu_says(
    name: str, provider: str, device: CudaDevice, graph: Path, tmp_path: Path, images: NDArray[np.float32]
) -> None:
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}")
    build_engine(get_runtime(name), graph, tmp_path / "e.onnx", BuildOptions())
    cpu = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    expected = cpu.run(["combined"], {"images": images})[0]
    np.testing.assert_allclose(load_engine(tmp_path / "e.onnx").infer(images)["combined"], expected, atol=5e-3)
