"""NVIDIA's management library, which comes with the driver of desktop GPUs and of Thor: energy and power of a GPU.

Through ctypes, by the names in ``nvml.h``: no package is needed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from edgetl.errors import EdgetlError

_LIBRARY = "libnvidia-ml.so.1"
_MILLI = 1e3


@dataclass(frozen=True)
class Gpu:
    """``joules`` counts since the driver was loaded (Volta and newer); ``watts`` are the driver's own average.

    Either is None where this GPU does not tell it. From Ampere on, ``watts`` are the mean of a whole second.
    """

    joules: Callable[[], float | None] | None
    watts: Callable[[], float | None] | None


def first_gpu(library: str = _LIBRARY) -> Gpu:
    """The first GPU of the driver's list.

    Raises:
        EdgetlError: there is no library, or no GPU that it knows.
    """
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        raise EdgetlError(f"no {library} is here") from None
    device = ctypes.c_void_p()
    _ask(nvml, "nvmlInit_v2")
    _ask(nvml, "nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(device))
    joules = _reader(nvml, "nvmlDeviceGetTotalEnergyConsumption", device, ctypes.c_ulonglong)
    watts = _reader(nvml, "nvmlDeviceGetPowerUsage", device, ctypes.c_uint)
    return Gpu(joules, watts)


def _reader(
    nvml: ctypes.CDLL, function: str, device: ctypes.c_void_p, kind: type[ctypes.c_ulonglong] | type[ctypes.c_uint]
) -> Callable[[], float | None] | None:
    """Reads a figure in thousandths; None where the GPU does not tell it at all."""

    def read() -> float | None:
        value = kind()
        try:
            code = getattr(nvml, function)(device, ctypes.byref(value))
        except AttributeError:  # an older library
            return None
        return value.value / _MILLI if code == 0 else None

    return read if read() is not None else None


def _ask(nvml: ctypes.CDLL, function: str, *arguments: object) -> None:
    try:
        code = getattr(nvml, function)(*arguments)
    except AttributeError:
        raise EdgetlError(f"{_LIBRARY} has no {function}") from None
    if code:
        raise EdgetlError(f"{function} of {_LIBRARY} answers {code}")
