"""Free memory of the GPU, asked of its driver in the primary context: the one that runtimes allocate in."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from edgetl.engine.nvidia.device import ask_driver, find_device

_MB = 2**20


def device_memory() -> tuple[Callable[[], float], bool]:
    """A call that tells how many MiB are free on the first GPU, and whether they are the processor's memory too.

    The context is made here, so that what it takes itself is not taken for an engine's.

    Raises:
        EdgetlError: there is no GPU, or its driver cannot be used.
    """
    device = find_device()
    cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    ask_driver(cuda, "cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)

    def free() -> float:
        left, total, popped = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
        ask_driver(cuda, "cuCtxPushCurrent_v2", context)
        try:
            ask_driver(cuda, "cuMemGetInfo_v2", ctypes.byref(left), ctypes.byref(total))
        finally:
            ask_driver(cuda, "cuCtxPopCurrent_v2", ctypes.byref(popped))
        return left.value / _MB

    return free, device.integrated
