"""What a Jetson tells of itself in its files: model, software, power mode, clocks, memory, DLA cores."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgetl.measure.sysfs import number, text

_GPU_CLOCKS = "sys/class/devfreq/*{}*"
_GPUS = ("gpu", "ga10b", "gv11b", "gb10b")
_MHZ = 1_000_000
_MOST_PACKAGES, _MOST_SETTINGS = 1 << 24, 1 << 20


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
        model=text(root / "proc/device-tree/model"),
        l4t=_l4t(text(root / "etc/nv_tegra_release")),
        jetpack=_jetpack(root),
        power_mode=_power_mode(root),
        gpu_mhz=_mhz(clocks, "cur_freq"),
        gpu_mhz_most=_mhz(clocks, "max_freq"),
        dla_cores=len(list(root.glob("sys/bus/platform/devices/*nvdla*"))),
        memory_mb=_memory(root, "MemTotal"),
        memory_free_mb=_memory(root, "MemAvailable"),
    )


def _l4t(text: str | None) -> str | None:
    """``# R36 (release), REVISION: 4.3, ...`` is 36.4.3."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text or "")
    return None if found is None else f"{found[1]}.{found[2]}"


def _jetpack(root: Path) -> str | None:
    """The version of the package nvidia-jetpack, without its build number."""
    status = text(root / "var/lib/dpkg/status", _MOST_PACKAGES) or ""
    found = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", status, flags=re.M)
    return None if found is None else found[1]


def _power_mode(root: Path) -> str | None:
    """The name that nvpmodel's settings give to the mode that its state tells."""
    state = re.search(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status") or "")
    if state is None:
        return None
    mode = int(state[1])
    settings = text(root / "etc/nvpmodel.conf", _MOST_SETTINGS) or ""
    named = re.search(rf"POWER_MODEL ID={mode} NAME=(\S+)", settings)
    return f"{mode} ({named[1]})" if named else str(mode)


def _mhz(clocks: Path | None, name: str) -> int | None:
    hertz = None if clocks is None else number(clocks / name)
    return None if hertz is None else hertz // _MHZ


def _memory(root: Path, field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", text(root / "proc/meminfo") or "", flags=re.M)
    return None if found is None else int(found[1]) // 1024
