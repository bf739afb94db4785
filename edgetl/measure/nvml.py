"""NVIDIA's management library, which comes with the driver of desktop GPUs and of Thor: energy, power, clocks of a GPU.

It is called through ctypes, by the names and numbers in ``nvml.h``: no package is needed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TypeVar

from edgetl.errors import EdgetlError

_LIBRARY = "libnvidia-ml.so.1"
_SM_CLOCK, _GPU_SENSOR, _SLOWDOWN = 1, 0, 1
_MILLI = 1e3

Number = TypeVar("Number", ctypes.c_ulonglong, ctypes.c_uint)

# Bits of ``nvmlClocksThrottleReasons``: all that are not the user's own setting.
THROTTLES = {
    "power cap": 0x04, "hardware slowdown": 0x08, "thermal limit": 0x20 | 0x40, "external power brake": 0x80
}  # fmt: skip


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Gpu:
    """The first GPU in the driver's list. What it or an older library does not support is None."""

    def __init__(self, library: str = _LIBRARY) -> None:
        """Load the driver's library.

        Raises:
            EdgetlError: there is no library, or no GPU that it knows.
        """
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError:
            raise EdgetlError(f"no {library} is here") from None
        self._device = ctypes.c_void_p()
        handle = ("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(self._device))
        for function, *arguments in (("nvmlInit_v2",), handle):
            if code := self._ask(function, *arguments):
                raise EdgetlError(f"{function} of {library} answers {code}")

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded; from Volta on."""
        value = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if value is None else value / _MILLI

    def watts(self) -> float | None:
        """Return the power; from Ampere on the mean of the last second."""
        value = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if value is None else value / _MILLI

    def mhz(self) -> int | None:
        return self._read("nvmlDeviceGetClockInfo", ctypes.c_uint(), _SM_CLOCK)

    def most_mhz(self) -> int | None:
        return self._read("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), _SM_CLOCK)

    def celsius(self) -> int | None:
        return self._read("nvmlDeviceGetTemperature", ctypes.c_uint(), _GPU_SENSOR)

    def slowdown_celsius(self) -> int | None:
        """Return the temperature at which the driver begins to slow the GPU down."""
        return self._read("nvmlDeviceGetTemperatureThreshold", ctypes.c_uint(), _SLOWDOWN)

    def load(self) -> float | None:
        """Return the fraction of the last moments in which a kernel ran."""
        rates = _Utilisation()
        code = self._ask("nvmlDeviceGetUtilizationRates", self._device, ctypes.byref(rates))
        return rates.gpu / 100 if code == 0 else None

    def throttles(self) -> dict[str, int] | None:
        """Return for each of `THROTTLES` whether it holds the clocks back now, 1 or 0."""
        bits = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return None if bits is None else {name: int(bool(bits & mask)) for name, mask in THROTTLES.items()}

    def _read(self, function: str, value: Number, *which: int) -> int | None:
        return int(value.value) if self._ask(function, self._device, *which, ctypes.byref(value)) == 0 else None

    def _ask(self, function: str, *arguments: object) -> int | None:
        """Return the function's code, 0 where it succeeded; None where an older library has no such function."""
        call: Callable[..., int] | None = getattr(self._nvml, function, None)
        return None if call is None else call(*arguments)
