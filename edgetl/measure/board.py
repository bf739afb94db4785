"""A Jetson's model, software, power mode, clocks, memory and DLA cores, read from its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgetl.measure.sysfs import number, text

_GPU_CLOCKS = "sys/class/devfreq/*{}*"
# The device is called ``gpu`` or by its chip (Orin, Xavier, Thor), depending on the board and its JetPack.
_GPUS = ("gpu", "ga10b", "gv11b", "gb10b")
# dpkg's list of packages and nvpmodel's settings are larger than the kernel's files.
_MOST_PACKAGES, _MOST_SETTINGS = 1 << 24, 1 << 20


@dataclass(frozen=True)
class Board:
    """A machine as its files describe it; None where they do not. ``l4t`` is as 36.4.3, ``jetpack`` as 6.2."""

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
    """Return what the files below ``root`` say of the board."""
    clocks = next((path for name in _GPUS for path in sorted(root.glob(_GPU_CLOCKS.format(name)))), None)
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release") or "")
    packages = text(root / "var/lib/dpkg/status", _MOST_PACKAGES) or ""
    # The version up to its build number: 6.2 of 6.2+b77.
    jetpack = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([\d.]+)", packages, flags=re.M)
    power_mode = None
    if state := re.search(r"pmode:(\d+)", text(root / "var/lib/nvpmodel/status") or ""):
        # The state holds the mode's number alone; its name is in nvpmodel's settings.
        mode, settings = int(state[1]), text(root / "etc/nvpmodel.conf", _MOST_SETTINGS) or ""
        named = re.search(rf"POWER_MODEL ID={mode} NAME=(\S+)", settings)
        power_mode = f"{mode} ({named[1]})" if named else str(mode)
    return Board(
        model=text(root / "proc/device-tree/model"),
        l4t=None if release is None else f"{release[1]}.{release[2]}",
        jetpack=None if jetpack is None else jetpack[1],
        power_mode=power_mode,
        gpu_mhz=_mhz(clocks, "cur_freq"),
        gpu_mhz_most=_mhz(clocks, "max_freq"),
        dla_cores=len(list(root.glob("sys/bus/platform/devices/*nvdla*"))),
        memory_mb=_memory(root, "MemTotal"),
        memory_free_mb=_memory(root, "MemAvailable"),
    )


def _mhz(clocks: Path | None, name: str) -> int | None:
    hertz = None if clocks is None else number(clocks / name)
    return None if hertz is None else hertz // 1_000_000


def _memory(root: Path, field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", text(root / "proc/meminfo") or "", flags=re.M)
    return None if found is None else int(found[1]) // 1024
