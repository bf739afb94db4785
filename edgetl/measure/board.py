"""What a Jetson tells of itself in its files: model, software, power mode, clocks, memory, DLA cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_GPU_CLOCKS = "sys/class/devfreq/*{}*"
_GPUS = ("gpu", "ga10b", "gv11b", "gb10b")
_MHZ = 1_000_000


@dataclass(frozen=True)
class Board:
    """A machine as its files tell it; None where they do not. ``l4t`` is such as 36.4.3, ``jetpack`` such as 6.2."""

    model: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    gpu_mhz: int | None
    gpu_mhz_most: int | None
    dla_cores: int
    memory_mb: int | None
    memory_free_mb: int | None


def read_board(root: Path = Path("/")) -> Board:
    """Look at the files below ``root``."""
    clocks = next((path for name in _GPUS for path in sorted(root.glob(_GPU_CLOCKS.format(name)))), None)
    return Board(
        model=_text(root / "proc/device-tree/model"),
        l4t=_l4t(_text(root / "etc/nv_tegra_release")),
        jetpack=_jetpack(root),
        power_mode=_power_mode(root),
        gpu_mhz=_mhz(clocks, "cur_freq"),
        gpu_mhz_most=_mhz(clocks, "max_freq"),
        dla_cores=len(list(root.glob("sys/bus/platform/devices/*nvdla*"))),
        memory_mb=_memory(root, "MemTotal"),
        memory_free_mb=_memory(root, "MemAvailable"),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0") or None
    except OSError:
        return None


def _l4t(text: str | None) -> str | None:
    """``# R36 (release), REVISION: 4.3, ...`` is 36.4.3."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text or "")
    return None if found is None else f"{found[1]}.{found[2]}"


def _jetpack(root: Path) -> str | None:
    """The version of the package nvidia-jetpack, without its build number."""
    status = _text(root / "var/lib/dpkg/status") or ""
    found = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", status, flags=re.M)
    return None if found is None else found[1]


def _power_mode(root: Path) -> str | None:
    """The name that nvpmodel's settings give to the mode that its state tells."""
    state = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if state is None:
        return None
    number = int(state[1])
    named = re.search(rf"POWER_MODEL ID={number} NAME=(\S+)", _text(root / "etc/nvpmodel.conf") or "")
    return f"{number} ({named[1]})" if named else str(number)


def _mhz(clocks: Path | None, name: str) -> int | None:
    text = None if clocks is None else _text(clocks / name)
    return int(text) // _MHZ if text and text.isdecimal() else None


def _memory(root: Path, field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", _text(root / "proc/meminfo") or "", flags=re.M)
    return None if found is None else int(found[1]) // 1024
