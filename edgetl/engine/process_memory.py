"""Memory that this process holds, as Linux tells it."""

from __future__ import annotations

import os
from pathlib import Path


def status_mb(field: str) -> float | None:
    """A field of /proc/self/status such as VmRSS or VmHWM (the peak); None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), None)


def available_mb() -> float | None:
    """Memory that the machine can still give to programs."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:")), None)


def forget_peak() -> None:
    """Let the peak begin anew with what is held now: man 5 proc, clear_refs."""
    path = Path("/proc/self/clear_refs")
    if os.access(path, os.W_OK):
        path.write_text("5", encoding="ascii")
