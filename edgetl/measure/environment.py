"""The machine and the software that a measurement was made with."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from edgetl import __version__
from edgetl.measure.board import read_board
from edgetl.measure.sysfs import text

_PACKAGES = ("numpy", "onnx", "onnxruntime", "tensorrt-rtx", "torch", "torchvision", "timm", "pillow")


def describe(processor: str, threads: int) -> dict[str, Any]:
    """Return machine, software and settings by name; what is not known is None or left out."""
    # Packages are looked up, never imported: importing torch takes seconds and memory.
    packages = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {
        "device": read_board().model or processor,
        "edgetl": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_mb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "governor": text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "packages": packages,
    }
