"""A device, and TensorRT of every generation, that are not here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetl.engine.nvidia import capture, contexts, cuda, runner, tensorrt_runtime
from edgetl.engine.nvidia.device import CudaDevice
from edgetl.engine.nvidia.generations import TensorRTPackage
from tests.unit.engine.nvidia.standin_cuda import Gpu
from tests.unit.engine.nvidia.standin_tensorrt import Play

ORIN = CudaDevice("Orin", "SM87", 16, 7620, True, "12.6")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A stand-in GPU, under the names that the engine room asks for one."""
    gpu = Gpu()
    context = cuda.Cuda(gpu.driver)
    monkeypatch.setattr(runner, "primary_context", lambda: context)
    monkeypatch.setattr(capture, "_bindings", lambda: gpu.bindings)
    for module in (tensorrt_runtime, contexts):
        monkeypatch.setattr(module, "find_device", lambda: ORIN)
    return gpu


@pytest.fixture
def generation(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> Callable[[str], Play]:
    """Let the module ``tensorrt`` be that of a version."""

    def generation(version: str) -> Play:
        play = Play(version, gpu)
        monkeypatch.setattr(TensorRTPackage, "load", lambda self: play.module)
        return play

    return generation


@pytest.fixture
def engine_file(tmp_path: Path) -> Path:
    return tmp_path / "engines" / "combined.engine"


@pytest.fixture
def orin() -> Any:
    return ORIN
