"""The machine's state while it is measured: clocks, temperatures, throttling, power mode, who else wanted the cores.

Layouts: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (power modes, thermal zones with their
trip points, soctherm's over-current events); the kernel's documentation of ``sysfs-class-devfreq``, ``cpufreq``,
``thermal`` and the thermal throttle counters of x86. Thor has a clock for each part of its GPU (``gpu-gpc-0``) and its
memory's among them (``bwmgr``); on Orin the memory's is told to root alone (``debug/bpmp``), as jetson-stats reads it.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgetl.errors import EdgetlError
from edgetl.measure import nvml
from edgetl.measure.sysfs import matching_paths, name, number, text

CARD = "graphics card"
_KHZ, _HZ = 1e3, 1e6
_GPU = re.compile(r"(^|\.)(gpu|ga10b|gv11b|gp10b|gb10b)$|^gpu-gpc-\d+$")
_EMC = "sys/kernel/debug/bpmp/debug/clk/emc"
_MOST_POLICIES = 16
_FANS = re.compile("fan", re.IGNORECASE)
_OFF = -100.0
"""Sensors of what is switched off read -256 or -274 degrees."""
_LEAST_TRIP = 30.0
"""Trip points that are switched off stand at 0 or below the coldest temperature there is."""


@dataclass(frozen=True)
class Clock:
    """``load`` is the share of time in which what it drives was at work, None where that is not told."""

    name: str
    mhz: float
    most_mhz: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class Temperature:
    """``trip`` is where the kernel begins to slow the machine down, in degrees Celsius as ``celsius`` is."""

    name: str
    celsius: float
    trip: float | None = None


@dataclass(frozen=True)
class MachineState:
    """A moment. ``throttles`` are counters of events and the depths of limits: none is 0, and none should rise.

    ``preemptions`` counts how often this process lost its core to another.
    """

    seconds: float = 0.0
    clocks: tuple[Clock, ...] = ()
    temperatures: tuple[Temperature, ...] = ()
    throttles: Mapping[str, int] = field(default_factory=dict)
    power_mode: str | None = None
    governor: str | None = None
    preemptions: int = 0


def probe(root: Path = Path("/")) -> Callable[[], MachineState]:
    """Look once for the files that tell; the answer reads them, about ten microseconds each on a PC.

    What is missing, odd or gone is left out of the state.
    """
    clocks = [*_devfreq_clocks(root), *_cpu_clock(root), *_memory_clock(root)]
    gpu = _driver_gpu(root)
    zones = [path for path in matching_paths(root, "sys/class/thermal/thermal_zone*") if name(path / "type")]
    temperatures = [partial(_temperature, name(path / "type") or "", path / "temp", _trip(path)) for path in zones]
    throttles = dict(_throttle_files(root))
    mode = root / "var/lib/nvpmodel/status"
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"

    def state() -> MachineState:
        card = gpu()
        limits = {title: value for title, path in throttles.items() if (value := number(path)) is not None}
        return MachineState(
            seconds=time.monotonic(),
            clocks=(*(clock for read in clocks if (clock := read()) is not None), *card.clocks),
            temperatures=(*(one for read in temperatures if (one := read()) is not None), *card.temperatures),
            throttles={**limits, **card.throttles},
            power_mode=_power_mode(mode),
            governor=name(governor),
            preemptions=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        )

    return state


def _driver_gpu(root: Path) -> Callable[[], MachineState]:
    """A card's part of the state, by NVIDIA's driver. A Jetson's GPU is told by the kernel's files."""
    if root != Path("/") or _devfreq_clocks(root):
        return MachineState
    try:
        gpu = nvml.Gpu()
    except EdgetlError:
        return MachineState
    most, slowdown = gpu.most_mhz(), gpu.slowdown_celsius()
    return partial(card_state, gpu, most, slowdown)


def card_state(gpu: nvml.Gpu, most_mhz: int | None, slowdown: int | None) -> MachineState:
    """Clock, temperature and limits of a card. What its driver limits it by stands for as long as it does."""
    mhz, celsius, throttles = gpu.mhz(), gpu.celsius(), gpu.throttles() or {}
    return MachineState(
        clocks=() if mhz is None else (Clock(CARD, mhz, most_mhz, gpu.load()),),
        temperatures=() if celsius is None else (Temperature(CARD, celsius, slowdown),),
        throttles={f"{CARD}, {name} alert": value for name, value in throttles.items()},
    )


def _devfreq_clocks(root: Path) -> list[Callable[[], Clock | None]]:
    """The GPU's, and the memory's where devfreq has it. The load is in thousandths, beside the device or the clock."""
    clocks: list[Callable[[], Clock | None]] = []
    for path in matching_paths(root, "sys/class/devfreq/*"):
        kind = "GPU" if _GPU.search(path.name) else "memory" if path.name == "bwmgr" else None
        if kind is not None:
            loads = (path / "load", path / "device/load")
            load = next((file for file in loads if number(file) is not None), None)
            clocks.append(partial(_clock, kind, path / "cur_freq", path / "max_freq", _HZ, load))
    return clocks


def _memory_clock(root: Path) -> list[Callable[[], Clock | None]]:
    path = root / _EMC
    return [partial(_clock, "memory", path / "rate", path / "max_rate", _HZ)] if number(path / "rate") else []


def _cpu_clock(root: Path) -> list[Callable[[], Clock | None]]:
    """The fastest core's alone: cores that have nothing to do are slow by right."""
    policies = matching_paths(root, "sys/devices/system/cpu/cpufreq/policy*")[:_MOST_POLICIES]

    def clock() -> Clock | None:
        told = (_clock("CPU", path / "scaling_cur_freq", path / "scaling_max_freq", _KHZ) for path in policies)
        return max((one for one in told if one is not None), key=lambda one: one.mhz, default=None)

    return [clock] if policies else []


def _clock(title: str, now: Path, most: Path, unit: float, load: Path | None = None) -> Clock | None:
    value, limit = number(now), number(most)
    if value is None or value < 0:
        return None
    busy = None if load is None else number(load)
    return Clock(title, value / unit, limit / unit if limit else None, None if busy is None else busy / 1000)


def _temperature(title: str, path: Path, trip: float | None) -> Temperature | None:
    value = number(path)
    return (
        None if value is None or value / 1e3 < _OFF else Temperature(title.removesuffix("-thermal"), value / 1e3, trip)
    )


def _trip(zone: Path) -> float | None:
    """The lowest at which something is slowed down (``passive``) or worse; at ``active`` ones fans begin to turn."""
    kinds = {path: name(path) for path in matching_paths(zone, "trip_point_*_type")}
    temperatures = [
        number(path.with_name(path.name.replace("_type", "_temp")))
        for path, kind in kinds.items()
        if kind in {"passive", "hot", "critical"}
    ]
    return min((value / 1e3 for value in temperatures if value is not None and value / 1e3 > _LEAST_TRIP), default=None)


def _throttle_files(root: Path) -> dict[str, Path]:
    """Limits that the kernel's thermal management sets, over-current events of a Jetson, throttle counters of x86."""
    devices = {path: name(path / "type") for path in matching_paths(root, "sys/class/thermal/cooling_device*")}
    limits = {kind: path / "cur_state" for path, kind in devices.items() if kind and not _FANS.search(kind)}
    events = {
        f"over-current event {path.name[2 : -len('_event_cnt')]}": path
        for path in matching_paths(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    }
    cores = matching_paths(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")[:_MOST_POLICIES]
    x86 = {f"thermal throttling of {path.parent.name}": path / "core_throttle_count" for path in cores}
    return {**limits, **events, **x86}


def _power_mode(path: Path) -> str | None:
    """The number of nvpmodel's mode."""
    state = re.search(r"pmode:(\d{1,9})", text(path) or "")
    return None if state is None else str(int(state[1]))
