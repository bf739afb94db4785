"""What a test on a GPU needs. Where it is not there, the test is skipped and says what was missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetl.engine.nvidia.cuda import Cuda, primary_context
from edgetl.engine.nvidia.device import CudaDevice, find_device
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from tests.unit.engine.conftest import SIZE, cnn

Load = Callable[..., Any]


def needed(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except EdgetlError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def device() -> CudaDevice:
    found: CudaDevice = needed(find_device)
    return found


@pytest.fixture
def cuda(device: CudaDevice) -> Cuda:
    found: Cuda = needed(primary_context)
    return found


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((5, 3, SIZE, SIZE), dtype=np.float32)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    onnx.save(cnn(), tmp_path / "combined.fp32.onnx")
    return tmp_path / "combined.fp32.onnx"


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def load(request: pytest.FixtureRequest, cuda: Cuda, graph: Path, tmp_path: Path) -> Load:
    """Build an engine on this device with a runtime, and load it. A refusal of the card is the reason of a skip."""

    def load(source: Path = graph, **run: Any) -> Any:
        engine = tmp_path / f"{source.stem}.{request.param}.engine"
        needed(lambda: build_engine(get_runtime(request.param), source, engine, BuildOptions()))
        return load_engine(engine, run=RunOptions(**run))

    return load
