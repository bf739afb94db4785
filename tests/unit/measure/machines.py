"""Files of machines, as their documents and their users' listings have them, written below a folder.

Sources: NVIDIA's Jetson Linux Developer Guide (35.6, 36.3, 38), "Platform Power and Performance" (rails, nvpmodel,
soctherm); jetson-stats' readers; the device trees of tegra234-p3701 and p3767 (labels of the INA3221's channels);
listings of an Orin Nano, an AGX Orin and a Thor in public notes (cooling devices, thermal zones, hwmon). Figures are in
the kernel's units.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Files = Mapping[str, str]


def write(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def ina3221(place: str, rails: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Channels 1 to 3 of the hwmon driver, mV and mA, and the sum of shunt voltages that is no rail."""
    files = {f"{place}/name": "ina3221\n", f"{place}/in7_label": "sum of shunt voltages\n", f"{place}/in7_input": "8\n"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files[f"{place}/in{channel}_label"] = f"{label}\n"
        files[f"{place}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{place}/curr{channel}_input"] = f"{milliamperes}\n"
    return files


def thermal(zones: Mapping[str, int], alerts: tuple[str, ...], passive: int = 99_000) -> dict[str, str]:
    files = {}
    for number, (kind, celsius) in enumerate(zones.items()):
        place = f"sys/class/thermal/thermal_zone{number}"
        files |= {f"{place}/type": f"{kind}\n", f"{place}/temp": f"{celsius}\n"}
        files |= {f"{place}/trip_point_0_type": "active\n", f"{place}/trip_point_0_temp": "51000\n"}
        files |= {f"{place}/trip_point_1_type": "passive\n", f"{place}/trip_point_1_temp": f"{passive}\n"}
        files |= {f"{place}/trip_point_2_type": "critical\n", f"{place}/trip_point_2_temp": "104500\n"}
    for number, kind in enumerate(("pwm-fan", *alerts)):
        place = f"sys/class/thermal/cooling_device{number}"
        files |= {f"{place}/type": f"{kind}\n", f"{place}/cur_state": f"{3 if 'fan' in kind else 0}\n"}
    return files


def devfreq(name: str, now: int, most: int, load: int | None = None) -> dict[str, str]:
    place = f"sys/class/devfreq/{name}"
    files = {f"{place}/cur_freq": f"{now}\n", f"{place}/max_freq": f"{most}\n", f"{place}/min_freq": "306000000\n"}
    return files if load is None else {**files, f"{place}/device/load": f"{load}\n"}


def cpus(policies: Mapping[int, int], most: int, governor: str = "schedutil") -> dict[str, str]:
    files = {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": f"{governor}\n"}
    for policy, now in policies.items():
        place = f"sys/devices/system/cpu/cpufreq/policy{policy}"
        files |= {f"{place}/scaling_cur_freq": f"{now}\n", f"{place}/scaling_max_freq": f"{most}\n"}
    return files


def soctherm(*counts: int) -> dict[str, str]:
    place = "sys/class/hwmon/hwmon3"
    events = {f"{place}/oc{number}_event_cnt": f"{count}\n" for number, count in enumerate(counts, 1)}
    return {f"{place}/name": "soctherm_oc\n", **events}


def nvpmodel(mode: int) -> dict[str, str]:
    return {"var/lib/nvpmodel/status": f"pmode:{mode:04d} fmode:quiet\n"}


_ORIN_ZONES = {"cpu-thermal": 51_375, "gpu-thermal": 48_500, "cv0-thermal": -256_000, "tj-thermal": 51_375}
_ORIN_ALERTS = ("cpu-throttle-alert", "gpu-throttle-alert", "hot-surface-alert", "devfreq-17000000.gpu")

ORIN_NANO = {
    **ina3221("sys/bus/i2c/devices/1-0040/hwmon/hwmon1", {
        "VDD_IN": (5_064, 1_120), "VDD_CPU_GPU_CV": (5_064, 240), "VDD_SOC": (5_056, 320),
    }),
    **thermal(_ORIN_ZONES, _ORIN_ALERTS), **devfreq("17000000.gpu", 624_750_000, 624_750_000, 730),
    **cpus({0: 1_510_400, 4: 729_600}, 1_510_400), **soctherm(0, 0, 0), **nvpmodel(0),
}  # fmt: skip

ORIN_NX = {
    **ina3221("sys/bus/i2c/devices/1-0040/hwmon/hwmon2", {
        "VDD_IN": (4_960, 1_600), "VDD_CPU_GPU_CV": (4_960, 520), "VDD_SOC": (4_960, 376),
    }),
    **thermal(_ORIN_ZONES, _ORIN_ALERTS), **devfreq("17000000.gpu", 306_000_000, 918_000_000, 0),
    **cpus({0: 1_984_000, 4: 1_984_000}, 1_984_000, "performance"), **soctherm(0, 0, 12), **nvpmodel(2),
}  # fmt: skip

AGX_ORIN = {
    **ina3221("sys/bus/i2c/devices/1-0040/hwmon/hwmon3", {
        "VDD_GPU_SOC": (4_968, 952), "VDD_CPU_CV": (4_968, 320), "VIN_SYS_5V0": (4_968, 760),
    }),
    **ina3221("sys/bus/i2c/devices/1-0041/hwmon/hwmon4", {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (4_968, 80)}),
    **thermal(_ORIN_ZONES, _ORIN_ALERTS), **devfreq("17000000.ga10b", 1_300_500_000, 1_300_500_000, 990),
    **cpus({0: 2_201_600, 4: 2_201_600, 8: 729_600}, 2_201_600), **nvpmodel(0),
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "3199000000\n",
}  # fmt: skip

THOR = {
    **ina3221("sys/bus/i2c/devices/2-0040/hwmon/hwmon5", {
        "VDD_GPU": (12_040, 640), "VDD_CPU_SOC_MSS": (12_040, 960), "VIN_SYS_5V0": (5_088, 1_740),
    }),
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon4/name": "ina238\n",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon4/power1_input": "40125000\n",
    **thermal({"cpu-thermal": 53_700, "tj-thermal": 55_100}, ("cpu-throttle-alert", "soc012-throttle-alert"), 109_000),
    **devfreq("gpu-gpc-0", 1_575_000_000, 1_575_000_000), **devfreq("gpu-nvd-0", 1_692_000_000, 1_692_000_000),
    **devfreq("bwmgr", 4_266_000_000, 4_266_000_000), **cpus({0: 2_601_000}, 2_601_000), **nvpmodel(0),
}  # fmt: skip

XAVIER_NX = {
    **ina3221("sys/bus/i2c/devices/7-0040/hwmon/hwmon6", {
        "VDD_IN": (5_096, 724), "VDD_CPU_GPU_CV": (5_096, 120), "VDD_SOC": (5_096, 200),
    }),
    **thermal({"CPU-therm": 40_500, "GPU-therm": 39_000}, ("cpufreq-cpu0",), 95_500),
    **devfreq("17000000.gv11b", 114_750_000, 1_109_250_000, 450), **cpus({0: 1_190_400}, 1_907_200), **nvpmodel(8),
}  # fmt: skip

_IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
NANO = {
    f"{_IIO}/rail_name_0": "POM_5V_IN\n", f"{_IIO}/in_power0_input": "2345\n",
    f"{_IIO}/rail_name_1": "POM_5V_GPU\n", f"{_IIO}/in_power1_input": "120\n",
    f"{_IIO}/rail_name_2": "POM_5V_CPU\n", f"{_IIO}/in_power2_input": "640\n",
    **devfreq("57000000.gpu", 921_600_000, 921_600_000, 500), **nvpmodel(0),
}  # fmt: skip

_RAPL = "sys/class/powercap"
X86 = {
    f"{_RAPL}/intel-rapl:0/name": "package-0\n", f"{_RAPL}/intel-rapl:0/energy_uj": "1000000\n",
    f"{_RAPL}/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    f"{_RAPL}/intel-rapl:0:0/name": "core\n", f"{_RAPL}/intel-rapl:0:0/energy_uj": "400000\n",
    f"{_RAPL}/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
    **thermal({"x86_pkg_temp": 61_000}, ("Processor", "intel_powerclamp"), 100_000),
    **cpus({0: 3_400_000, 1: 800_000}, 4_700_000, "powersave"),
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7\n",
}  # fmt: skip

MACHINES: dict[str, dict[str, str]] = {
    "Orin Nano": ORIN_NANO, "Orin NX": ORIN_NX, "AGX Orin": AGX_ORIN, "Thor": THOR, "Xavier NX": XAVIER_NX,
    "Nano": NANO, "x86": X86,
}  # fmt: skip
