"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from edgetl import __version__
from edgetl.measure.board import read_board

_PACKAGES = ("numpy", "onnx", "onnxruntime", "tensorrt-rtx", "torch", "torchvision", "timm", "pillow")


def describe(processor: str, threads: int) -> dict[str, Any]:
    """Machine, software and settings. Packages are looked up, never imported."""
    return {
        "device": read_board().model or processor,
        "edgetl": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "governor": _governor(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None
