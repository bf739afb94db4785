"""Memory of this process and of the machine, from Linux' /proc."""

from __future__ import annotations

import os
from pathlib import Path


def status_mb(field: str) -> float | None:
    """A field of /proc/self/status in MiB, such as VmRSS or VmHWM (the peak); None where the system has none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


def available_mb() -> float | None:
    """MiB that the machine can still give to programs; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:")), None)


def forget_peak() -> None:
    """Reset the peak, VmHWM, to what is held now (man 5 proc, clear_refs)."""
    path = Path("/proc/self/clear_refs")
    if os.access(path, os.W_OK):
        path.write_text("5", encoding="ascii")
