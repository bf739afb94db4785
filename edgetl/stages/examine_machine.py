"""Reports what this machine has, what each command lacks on it, and how to get it."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from edgetl import __version__
from edgetl.artifacts.inspection import Capability, DoctorReport
from edgetl.engine.nvidia.device import CudaDevice, find_device
from edgetl.engine.processor import processor
from edgetl.errors import EdgetlError
from edgetl.measure.board import read_board

_PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision", "timm", "tensorrt", "tensorrt-rtx",
    "pycuda", "cuda-bindings",
)  # fmt: skip
_TRAINING = ("torch", "torchvision", "timm", "safetensors", "sklearn", "scipy", "onnxsim")
_JETPACK_PYTHON = "usr/lib/python3*/dist-packages/tensorrt"
_BUILD_PYCUDA = "PATH=/usr/local/cuda/bin:$PATH pip install 'edgetl[tensorrt]'"
_NO_TOOLKIT = "sudo apt install cuda-toolkit, then " + _BUILD_PYCUDA


def examine(root: Path = Path("/")) -> DoctorReport:
    """The facts of this machine, and what each command lacks on it. ``root`` is the root of its file system."""
    device, why = None, ""
    try:
        device = find_device()
    except EdgetlError as error:
        why = str(error)
    versions = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    facts: dict[str, dict[str, Any]] = {
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": processor(),
            **asdict(read_board(root)),
        },
        "gpu": {"device": why or None} if device is None else asdict(device),
        "cuda": {"toolkit": _toolkit(root), "nvcc": shutil.which("nvcc")},
        "python": {"version": platform.python_version(), "executable": sys.executable, "edgetl": __version__},
        "packages": versions,
        "onnxruntime": {"providers": _providers()},
        "tensorrt": {"of the system": [str(path) for path in sorted(root.glob(_JETPACK_PYTHON))]},
    }
    return DoctorReport(facts=facts, capabilities=tuple(_capabilities(device, why, root)))


def _toolkit(root: Path) -> str | None:
    """The name of the toolkit that /usr/local/cuda leads to."""
    path = root / "usr/local/cuda"
    return path.resolve().name if path.exists() else None


def _providers() -> list[str]:
    """The providers of ONNX Runtime, by the libraries in its package."""
    # Found and not imported, as all packages here: a broken one may end the process.
    spec = importlib.util.find_spec("onnxruntime")
    found = ["cpu"]
    if spec is not None and spec.origin is not None:
        capi = Path(spec.origin).parent / "capi"
        found += [name for name in ("cuda", "tensorrt") if list(capi.glob(f"*onnxruntime_providers_{name}.*"))]
    return found


Fault = tuple[str, str] | None


def _capabilities(device: CudaDevice | None, why: str, root: Path) -> Iterator[Capability]:
    """What commands need, with what is missing for it."""

    def lacks(modules: Sequence[str], fix: str) -> Fault:
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        return (f"{', '.join(absent)} not installed", fix) if absent else None

    def needs(what: str, *faults: Fault) -> Capability:
        missing, fix = next((fault for fault in faults if fault is not None), (None, None))
        return Capability(what=what, missing=missing, fix=fix)

    gpu = None if device is not None else (why or "no GPU", "install NVIDIA's driver, then reboot")
    tensorrt = lacks(["tensorrt"], "sudo apt install python3-libnvinfer (a Jetson), or see docs/jetson.md")
    if tensorrt is not None and any(root.glob(_JETPACK_PYTHON)):
        fix = f"{sys.executable} -m venv --system-site-packages .venv"
        tensorrt = "tensorrt is the system's and this environment does not see it", fix
    pycuda = lacks(["pycuda"], _BUILD_PYCUDA if _toolkit(root) else _NO_TOOLKIT)
    no_cuda = "this onnxruntime has no CUDA provider", "pip uninstall onnxruntime; pip install onnxruntime-gpu"
    cuda = device.driver.partition(".")[0] if device is not None else "13"
    yield needs("run, finetune and export of a study", lacks(_TRAINING, "pip install 'edgetl[train]'"))
    yield needs("report with its page", lacks(["jinja2"], "pip install 'edgetl[report]'"))
    yield needs("build-engine --runtime tensorrt-rtx", lacks(["tensorrt_rtx"], "pip install 'edgetl[rtx]'"))
    yield needs("build-engine --runtime tensorrt", tensorrt, gpu)
    yield needs("running TensorRT engines", pycuda, gpu)
    yield needs("CUDA graphs of TensorRT engines", lacks(["cuda"], f"pip install 'cuda-bindings=={cuda}.*'"))
    yield needs("--provider cuda", None if "cuda" in _providers() else no_cuda, gpu)
