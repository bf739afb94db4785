"""Meters of the machine's power: a Jetson's supply rails, NVIDIA's driver, or the processor's own counters.

Sources: NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (the INA3221, its rails per module);
the kernel's ``hwmon/ina3221`` (millivolts, milliamperes) and ``hwmon/ina238`` (microwatts); the driver of JetPack 4
(``iio:device``, milliwatts), as jetson-stats reads it; ``powercap`` (microjoules, counters that wrap).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgetl.errors import EdgetlError
from edgetl.measure import nvml
from edgetl.measure.sysfs import matching_paths, name, number

Read = Callable[[], float | None]

# A module's whole input, where it is measured: Orin Nano and NX, Xavier NX, TX2 NX, Nano.
_ALL = ("VDD_IN", "POM_5V_IN", "5V_IN")
# Rails that add up to the input of a module where the input itself is not measured.
_MODULES = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),  # Thor
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
_MICRO, _MILLI = 1e6, 1e3


@dataclass(frozen=True)
class Meter:
    """A source of power readings: ``rails`` read watts, or joules where ``counts``; ``total_of`` add up to the whole.

    ``wraps`` is the number of joules after which a counter begins anew.
    """

    source: str
    rails: Mapping[str, Read]
    total_of: tuple[str, ...]
    counts: bool = False
    wraps: Mapping[str, float] | None = None


def find_meter(root: Path = Path("/")) -> Meter:
    """Return the meter that covers most of the machine: a Jetson's rails before the GPU's driver before the processor.

    Raises:
        EdgetlError: there is none that can be read; says what was looked for.
    """
    rails = dict(_channels(root))
    wholes = (*((rail,) for rail in _ALL), *_MODULES)
    total = next((names for names in wholes if rails.keys() >= set(names)), None)
    if total is not None:
        return Meter("INA3221 power monitor", rails, total)
    unknown = f"the power rails {', '.join(rails)} are of no module that is known"
    reasons = [unknown if rails else "no INA3221 power monitor can be read"]
    for look in (_driver, _processor):
        meter = look(root)
        if isinstance(meter, Meter):
            return meter
        reasons.append(meter)
    raise EdgetlError("; ".join(reasons))


def _channels(root: Path) -> Iterator[tuple[str, Read]]:
    """Yield each rail that can be read, with its reader; a rail that two drivers name is read by the later one."""
    # Kernels differ in whether there is a folder ``hwmon`` around the monitor's own.
    patterns = ("sys/bus/i2c/devices/*/hwmon/hwmon*", "sys/bus/i2c/devices/*/hwmon*")
    for folder in (path for pattern in patterns for path in matching_paths(root, pattern)):
        for label in matching_paths(folder, "in*_label"):
            rail, channel = name(label), label.name[2 : -len("_label")]
            read = partial(_product, folder / f"in{channel}_input", folder / f"curr{channel}_input")
            # Channels without a wire are called NC; the sum of shunts has a label but no current, and is no rail.
            if rail and rail != "NC" and read() is not None:
                yield rail, read
        read = partial(_scaled, folder / "power1_input", _MICRO)
        if name(folder / "name") == "ina238" and read() is not None:
            yield "VIN", read
    for label in matching_paths(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        read = partial(_scaled, label.with_name(f"in_power{label.name.rpartition('_')[2]}_input"), _MILLI)
        if (rail := name(label)) and read() is not None:
            yield rail, read


def _driver(root: Path) -> Meter | str:
    # The library asks the machine that it runs on, so it knows nothing of one in another root.
    if root != Path("/"):
        return "NVIDIA's driver is not asked"
    try:
        gpu = nvml.Gpu()
    except EdgetlError as error:
        return str(error)
    if gpu.joules() is not None:
        return Meter("NVIDIA driver (energy counter)", {"GPU": gpu.joules}, ("GPU",), counts=True)
    if gpu.watts() is not None:
        return Meter("NVIDIA driver (power)", {"GPU": gpu.watts}, ("GPU",))
    return "NVIDIA's driver does not report this GPU's power"


def _processor(root: Path) -> Meter | str:
    """Return RAPL's counters, or why there are none."""
    rails, wraps, refused = {}, {}, False
    for folder in matching_paths(root, "sys/class/powercap/intel-rapl:*"):
        part, read = name(folder / "name"), partial(_scaled, folder / "energy_uj", _MICRO)
        if part is None:
            continue
        if read() is None:
            refused = True
            continue
        title = part if part not in rails else f"{part} {folder.name.rpartition('intel-rapl:')[2]}"
        rails[title], wraps[title] = read, (number(folder / "max_energy_range_uj") or 0) / _MICRO
    # Packages add up to the whole; cores and memory controllers are parts of them.
    packages = tuple(part for part in rails if re.match(r"package-\d+", part))
    if packages:
        return Meter("RAPL counters of the processor", rails, packages, counts=True, wraps=wraps)
    if refused:
        allow = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
        return f"the processor's energy counters are for root alone ({allow})"
    return "the processor has no energy counters"


def _scaled(path: Path, unit: float) -> float | None:
    value = number(path)
    return None if value is None or value < 0 else value / unit


def _product(millivolts: Path, milliamperes: Path) -> float | None:
    # A small negative current is the monitor's offset.
    volts, amperes = number(millivolts), number(milliamperes)
    return None if volts is None or amperes is None else max(0.0, volts * amperes / (_MILLI * _MILLI))
