"""The GPU of this machine and its free memory, from the driver's own library: no package is needed for that."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

from edgetl.errors import EdgetlError

# Numbers of CUdevice_attribute in cuda.h.
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_MB = 2**20


@dataclass(frozen=True)
class CudaDevice:
    """A GPU. ``capability`` is for example SM87, ``driver`` the newest CUDA that the driver supports, such as 12.6."""

    name: str
    capability: str
    multiprocessors: int
    memory_mb: int
    integrated: bool
    driver: str

    @property
    def title(self) -> str:
        """The name with the number of multiprocessors: every Jetson Orin is called Orin."""
        return f"{self.name} ({self.multiprocessors} SMs)"


def find_device() -> CudaDevice:
    """The first GPU that CUDA shows; ``CUDA_VISIBLE_DEVICES`` chooses it. No context is made.

    Raises:
        EdgetlError: there is none, or no driver for it.
    """
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise EdgetlError("no NVIDIA driver is here (libcuda.so.1 is not found); install it, then reboot") from None
    ask_driver(cuda, "cuInit", 0)
    count, device, driver = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    ask_driver(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise EdgetlError("the NVIDIA driver shows no GPU; is CUDA_VISIBLE_DEVICES empty?")
    ask_driver(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    ask_driver(cuda, "cuDriverGetVersion", ctypes.byref(driver))
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    ask_driver(cuda, "cuDeviceGetName", name, len(name), device)
    # Without _v2 the driver still has the function of CUDA 3.1, with sizes of 32 bits.
    ask_driver(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    return CudaDevice(
        name=name.value.decode("utf-8", "replace"),
        capability=f"SM{_attribute(cuda, device, _MAJOR)}{_attribute(cuda, device, _MINOR)}",
        multiprocessors=_attribute(cuda, device, _MULTIPROCESSORS),
        memory_mb=memory.value // _MB,
        integrated=bool(_attribute(cuda, device, _INTEGRATED)),
        driver=f"{driver.value // 1000}.{driver.value % 1000 // 10}",
    )


def _attribute(cuda: ctypes.CDLL, device: ctypes.c_int, number: int) -> int:
    value = ctypes.c_int()
    ask_driver(cuda, "cuDeviceGetAttribute", ctypes.byref(value), number, device)
    return value.value


def ask_driver(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    """Call a function of the driver's.

    Raises:
        EdgetlError: it returns an error.
    """
    code = getattr(cuda, function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown"
        raise EdgetlError(f"the NVIDIA driver cannot be used: {function} says {reason} (error {code})")


def device_memory() -> tuple[Callable[[], float], bool]:
    """A function that returns how many MiB are free on the first GPU, and whether that is the processor's memory too.

    Raises:
        EdgetlError: there is no GPU, or its driver cannot be used.
    """
    device = find_device()
    cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    # The primary context is the one that runtimes use. Made now, its own memory does not count as an engine's.
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
