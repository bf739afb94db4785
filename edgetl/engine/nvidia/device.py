"""The GPU that is here, asked of its driver: no package is needed for that, and no context is made."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from edgetl.errors import EdgetlError

# Numbers of CUdevice_attribute in cuda.h.
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76
_MB = 2**20


@dataclass(frozen=True)
class CudaDevice:
    """A GPU. ``capability`` is such as SM87, ``driver`` the newest CUDA that its driver can do, such as 12.6."""

    name: str
    capability: str
    multiprocessors: int
    memory_mb: int
    integrated: bool
    driver: str

    @property
    def title(self) -> str:
        """Tells apart what has one name: every Jetson Orin is called Orin."""
        return f"{self.name} ({self.multiprocessors} SMs)"


def find_device() -> CudaDevice:
    """The first GPU that CUDA shows; ``CUDA_VISIBLE_DEVICES`` chooses.

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
        EdgetlError: it answers with an error.
    """
    code = getattr(cuda, function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown"
        raise EdgetlError(f"the NVIDIA driver cannot be used: {function} says {reason} (error {code})")
