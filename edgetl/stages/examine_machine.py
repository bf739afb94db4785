"""What is on this machine, what is missing for which command, and what mends it. Packages are found, never imported."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from edgetl import __version__
from edgetl.artifacts.inspection import Capability, DoctorReport
from edgetl.engine.nvidia.device import CudaDevice, find_device
from edgetl.engine.processor import processor
from edgetl.errors import EdgetlError
from edgetl.measure.board import Board, read_board

_PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "timm", "tensorrt", "tensorrt-rtx",
    "pycuda", "cuda-bindings",
)  # fmt: skip
_TRAINING = ("torch", "torchvision", "timm", "safetensors", "sklearn", "scipy", "onnxsim")
_JETPACK_PYTHON = "usr/lib/python3*/dist-packages/tensorrt"
_BUILD_PYCUDA = "PATH=/usr/local/cuda/bin:$PATH pip install 'edgetl[tensorrt]'"
_NO_TOOLKIT = "sudo apt install cuda-toolkit, then " + _BUILD_PYCUDA


def examine(root: Path = Path("/")) -> DoctorReport:
    """Look the machine over."""
    board = read_board(root)
    device, why = _device()
    return DoctorReport(facts=_facts(board, device, why, root), capabilities=tuple(_needs(device, why, root)))


def _device() -> tuple[CudaDevice | None, str | None]:
    try:
        return find_device(), None
    except EdgetlError as error:
        return None, str(error)


def _facts(board: Board, device: CudaDevice | None, why: str | None, root: Path) -> dict[str, dict[str, Any]]:
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "machine": {"system": f"{platform.system()} {platform.release()}", "processor": processor(), **asdict(board)},
        "gpu": {"device": why} if device is None else asdict(device),
        "cuda": {"toolkit": _toolkit(root), "nvcc": shutil.which("nvcc")},
        "python": {"version": platform.python_version(), "executable": sys.executable, "edgetl": __version__},
        "packages": {name: version for name, version in versions.items() if version is not None},
        "onnxruntime": {"providers": _providers()},
        "tensorrt": {"of the system": [str(path) for path in sorted(root.glob(_JETPACK_PYTHON))]},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _toolkit(root: Path) -> str | None:
    """The toolkit that /usr/local/cuda leads to."""
    path = root / "usr/local/cuda"
    return path.resolve().name if path.exists() else None


def _providers() -> list[str]:
    """ONNX Runtime's, by the libraries in its package."""
    spec = importlib.util.find_spec("onnxruntime")
    found = ["cpu"]
    if spec is not None and spec.origin is not None:
        capi = Path(spec.origin).parent / "capi"
        found += [name for name in ("cuda", "tensorrt") if list(capi.glob(f"*onnxruntime_providers_{name}.*"))]
    return found


def _needs(device: CudaDevice | None, why: str | None, root: Path) -> Iterable[Capability]:
    yield _packages("run, finetune and export of a study", _TRAINING, "pip install 'edgetl[train]'")
    yield _packages("report with its page", ("jinja2",), "pip install 'edgetl[report]'")
    yield _packages("build-engine --runtime tensorrt-rtx", ("tensorrt_rtx",), "pip install 'edgetl[rtx]'")
    yield _first("build-engine --runtime tensorrt", (lambda: _tensorrt(root), lambda: _gpu(device, why)))
    yield _first("running TensorRT engines", (lambda: _pycuda(root), lambda: _gpu(device, why)))
    yield _packages("CUDA graphs of TensorRT engines", ("cuda",), f"pip install 'cuda-bindings=={_major(device)}.*'")
    yield _first("--provider cuda", (_gpu_provider, lambda: _gpu(device, why)))


Fault = tuple[str, str] | None


def _first(what: str, checks: Sequence[Callable[[], Fault]]) -> Capability:
    """Whether all checks pass; else what the first that does not says."""
    fault = next((found for check in checks if (found := check()) is not None), None)
    return Capability(what=what, missing=fault and fault[0], fix=fault and fault[1])


def _packages(what: str, modules: Sequence[str], mend: str) -> Capability:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return _first(what, (lambda: (f"{', '.join(absent)} not installed", mend) if absent else None,))


def _tensorrt(root: Path) -> Fault:
    if importlib.util.find_spec("tensorrt") is not None:
        return None
    if any(root.glob(_JETPACK_PYTHON)):
        return "tensorrt is the system's and this environment does not see it", (
            f"{sys.executable} -m venv --system-site-packages .venv"
        )
    return "tensorrt not installed", "sudo apt install python3-libnvinfer (a Jetson), or see docs/jetson.md"


def _pycuda(root: Path) -> Fault:
    if importlib.util.find_spec("pycuda") is not None:
        return None
    return "pycuda not installed", _BUILD_PYCUDA if _toolkit(root) else _NO_TOOLKIT


def _gpu(device: CudaDevice | None, why: str | None) -> Fault:
    return None if device is not None else (why or "no GPU", "install NVIDIA's driver, then reboot")


def _gpu_provider() -> Fault:
    if "cuda" in _providers():
        return None
    return "this onnxruntime has no CUDA provider", "pip uninstall onnxruntime; pip install onnxruntime-gpu"


def _major(device: CudaDevice | None) -> str:
    return device.driver.partition(".")[0] if device is not None else "13"
