"""The machine's state while it is measured: clocks, temperatures, throttling, power mode, other programs on its cores.

Layouts: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (power modes, thermal zones with their
trip points, soctherm's over-current events); the kernel's documentation of ``sysfs-class-devfreq``, ``cpufreq``,
``thermal`` and the thermal throttle counters of x86. Thor has a clock for each part of its GPU (``gpu-gpc-0``) and its
memory's among them (``bwmgr``); on Orin root alone can read the memory's (``debug/bpmp``), as jetson-stats does.
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
# A server with hundreds of cores would make every probe slow.
_MOST_POLICIES = 16
# A fan is a cooling device, too, but its state rising slows nothing down.
_FANS = re.compile("fan", re.IGNORECASE)
# Sensors of what is switched off read -256 or -274 degrees.
_OFF = -100.0
# Trip points that are switched off stand at 0 or below the coldest temperature there is.
_LEAST_TRIP = 30.0


@dataclass(frozen=True)
class Clock:
    """A clock; ``load`` is the fraction of time in which what it drives was at work, None where that is unknown."""

    name: str
    mhz: float
    most_mhz: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class Temperature:
    """A sensor's temperature; ``trip`` is where the kernel begins to slow the machine down. Both in degrees Celsius."""

    name: str
    celsius: float
    trip: float | None = None


@dataclass(frozen=True)
class MachineState:
    """The machine at one moment. ``throttles`` are counters of events and the depths of limits: none should rise.

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
    """Find the files that describe the machine, and return a function that reads them.

    It takes about ten microseconds a file on a PC. What is missing, odd or gone is left out of the state.
    """
    emc = root / _EMC
    # Only root can read it.
    clocks = [*_devfreq_clocks(root), *_cpu_clock(root)]
    if number(emc / "rate"):
        clocks.append(partial(_clock, "memory", emc / "rate", emc / "max_rate", _HZ))
    gpu = _driver_gpu(root)
    zones = [path for path in matching_paths(root, "sys/class/thermal/thermal_zone*") if name(path / "type")]
    sensors = [((name(path / "type") or "").removesuffix("-thermal"), path / "temp", _trip(path)) for path in zones]
    throttles = _throttle_files(root)
    mode, cpu = root / "var/lib/nvpmodel/status", root / "sys/devices/system/cpu/cpu0"

    def state() -> MachineState:
        card, power_mode = gpu(), re.search(r"pmode:(\d{1,9})", text(mode) or "")
        temperatures = [
            Temperature(title, value / 1e3, trip)
            for title, path, trip in sensors
            if (value := number(path)) is not None and value / 1e3 >= _OFF
        ]
        limits = {title: value for title, path in throttles.items() if (value := number(path)) is not None}
        return MachineState(
            seconds=time.monotonic(),
            clocks=(*(clock for read in clocks if (clock := read()) is not None), *card.clocks),
            temperatures=(*temperatures, *card.temperatures),
            throttles={**limits, **card.throttles},
            power_mode=None if power_mode is None else str(int(power_mode[1])),
            governor=name(cpu / "cpufreq/scaling_governor"),
            preemptions=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        )

    return state


def _driver_gpu(root: Path) -> Callable[[], MachineState]:
    """Return a function that asks NVIDIA's driver for a card's part of the state."""
    # A Jetson's GPU is in the kernel's files already; the driver knows nothing of a machine in another root.
    if root != Path("/") or _devfreq_clocks(root):
        return MachineState
    try:
        gpu = nvml.Gpu()
    except EdgetlError:
        return MachineState
    most, slowdown = gpu.most_mhz(), gpu.slowdown_celsius()
    return partial(card_state, gpu, most, slowdown)


def card_state(gpu: nvml.Gpu, most_mhz: int | None, slowdown: int | None) -> MachineState:
    """Return clock, temperature and limits of a card; a limit that the driver sets is an alert, 1 while it holds."""
    mhz, celsius, throttles = gpu.mhz(), gpu.celsius(), gpu.throttles() or {}
    return MachineState(
        clocks=() if mhz is None else (Clock(CARD, mhz, most_mhz, gpu.load()),),
        temperatures=() if celsius is None else (Temperature(CARD, celsius, slowdown),),
        throttles={f"{CARD}, {name} alert": value for name, value in throttles.items()},
    )


def _devfreq_clocks(root: Path) -> list[Callable[[], Clock | None]]:
    """Return readers of the GPU's clock, and of the memory's where devfreq has it."""
    clocks: list[Callable[[], Clock | None]] = []
    for path in matching_paths(root, "sys/class/devfreq/*"):
        kind = "GPU" if _GPU.search(path.name) else "memory" if path.name == "bwmgr" else None
        if kind is not None:
            # The load is in thousandths, with the clock or with the device that it drives.
            loads = (path / "load", path / "device/load")
            load = next((file for file in loads if number(file) is not None), None)
            clocks.append(partial(_clock, kind, path / "cur_freq", path / "max_freq", _HZ, load))
    return clocks


def _cpu_clock(root: Path) -> list[Callable[[], Clock | None]]:
    """Return a reader of the fastest core's clock: cores that have nothing to do are slow with good reason."""
    policies = matching_paths(root, "sys/devices/system/cpu/cpufreq/policy*")[:_MOST_POLICIES]

    def clock() -> Clock | None:
        cores = (_clock("CPU", path / "scaling_cur_freq", path / "scaling_max_freq", _KHZ) for path in policies)
        return max((one for one in cores if one is not None), key=lambda one: one.mhz, default=None)

    return [clock] if policies else []


def _clock(title: str, now: Path, most: Path, unit: float, load: Path | None = None) -> Clock | None:
    value, limit = number(now), number(most)
    if value is None or value < 0:
        return None
    busy = None if load is None else number(load)
    return Clock(title, value / unit, limit / unit if limit else None, None if busy is None else busy / 1000)


def _trip(zone: Path) -> float | None:
    """Return the lowest temperature at which something is slowed down (``passive``) or worse; None if unknown."""
    kinds = {path: name(path) for path in matching_paths(zone, "trip_point_*_type")}
    # At ``active`` trip points no more happens than that fans begin to turn.
    temperatures = [
        number(path.with_name(path.name.replace("_type", "_temp")))
        for path, kind in kinds.items()
        if kind in {"passive", "hot", "critical"}
    ]
    return min((value / 1e3 for value in temperatures if value is not None and value / 1e3 > _LEAST_TRIP), default=None)


def _throttle_files(root: Path) -> dict[str, Path]:
    """Return files of the kernel's thermal limits, a Jetson's over-current events, and x86's throttle counters."""
    devices = {path: name(path / "type") for path in matching_paths(root, "sys/class/thermal/cooling_device*")}
    limits = {kind: path / "cur_state" for path, kind in devices.items() if kind and not _FANS.search(kind)}
    events = {
        f"over-current event {path.name[2 : -len('_event_cnt')]}": path
        for path in matching_paths(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")
    }
    cores = matching_paths(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")[:_MOST_POLICIES]
    x86 = {f"thermal throttling of {path.parent.name}": path / "core_throttle_count" for path in cores}
    return {**limits, **events, **x86}
