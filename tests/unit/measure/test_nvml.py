"""NVIDIA's library is asked through its C interface: here a library that answers as ``nvml.h`` says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgetl.errors import EdgetlError
from edgetl.measure.disturbances import disturbances
from edgetl.measure.machine import Clock, Temperature, card_state
from edgetl.measure.nvml import Gpu

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

LIBRARY = """
typedef unsigned long long ull;
typedef struct { unsigned gpu, memory; } rates;
static int one;
#define OF(device) (device == &one ? 0 : 2)
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = &one; return index ? 6 : 0; }
#ifndef OLD
int nvmlDeviceGetTotalEnergyConsumption(void *device, ull *mj) { *mj = 123456789012ULL; return OF(device); }
#endif
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { *mw = 25500; return OF(device); }
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) { *mhz = kind == 1 ? 1410 : 0; return OF(device); }
int nvmlDeviceGetMaxClockInfo(void *device, int kind, unsigned *mhz) { *mhz = kind == 1 ? 1980 : 0; return OF(device); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *c) { *c = sensor == 0 ? 84 : 0; return OF(device); }
int nvmlDeviceGetTemperatureThreshold(void *card, int kind, unsigned *c) { *c = kind == 1 ? 86 : 0; return OF(card); }
int nvmlDeviceGetUtilizationRates(void *device, rates *r) { r->gpu = 97; r->memory = 12; return OF(device); }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, ull *bits) { *bits = 0x24; return OF(device); }
"""


def library(folder: Path, *macros: str, source: str = LIBRARY) -> Gpu:
    (folder / "nvml.c").write_text(source)
    target = folder / "libnvml.so"
    defines = [f"-D{macro}" for macro in macros or ("INIT=0",)]
    subprocess.run(["cc", "-shared", "-fPIC", *defines, folder / "nvml.c", "-o", target], check=True)
    return Gpu(str(target))


def test_counters_of_64_bits_and_handles_arrive_whole(tmp_path: Path) -> None:
    gpu = library(tmp_path)
    assert gpu.joules() == 123456789.012
    assert gpu.watts() == 25.5


def test_an_older_library_counts_no_energy_and_tells_power(tmp_path: Path) -> None:
    gpu = library(tmp_path, "INIT=0", "OLD")
    assert gpu.joules() is None
    assert gpu.watts() == 25.5


def test_what_a_card_refuses_is_unknown(tmp_path: Path) -> None:
    gpu = library(tmp_path, source=LIBRARY.replace("(device == &one ? 0 : 2)", "3"))
    state = card_state(gpu, gpu.most_mhz(), gpu.slowdown_celsius())
    assert gpu.watts() is None and gpu.load() is None
    assert (state.clocks, state.temperatures, dict(state.throttles)) == ((), (), {})


def test_a_library_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"nvmlInit_v2 of .*libnvml\.so answers 9"):
        library(tmp_path, "INIT=9")


def test_a_hot_card_at_its_power_cap_disturbs_and_the_lines_say_what_helps(tmp_path: Path) -> None:
    gpu = library(tmp_path)
    state = card_state(gpu, gpu.most_mhz(), gpu.slowdown_celsius())
    assert state.clocks == (Clock("graphics card", 1410, 1980, 0.97),)
    assert state.temperatures == (Temperature("graphics card", 84, 86),)
    text = "\n".join(disturbances([state, state]))
    assert "throttled (graphics card, power cap alert)" in text
    assert "throttled (graphics card, thermal limit alert)" in text
    assert "hardware slowdown" not in text
    assert "graphics card reached 84 °C, and at 86 °C" in text
    assert "ran at 1410 MHz, below its 1980: sudo nvidia-smi -lgc" in text
