"""The device's primary context through PyCUDA: the one that torch and TensorRT use too, so that all can share memory.

``pycuda.autoinit`` makes a context of its own, in which TensorRT beside torch crashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

from edgetl.errors import EdgetlError, MissingExtraError

_MB = 2**20


@lru_cache(maxsize=1)
def primary_context() -> Cuda:
    """The context of the first GPU that CUDA shows.

    Raises:
        EdgetlError: PyCUDA is not installed, or there is no usable GPU.
    """
    return Cuda(_driver())


def _driver() -> ModuleType:
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        raise MissingExtraError("running TensorRT engines", "tensorrt", error) from error
    except ImportError as error:
        raise EdgetlError(f"PyCUDA does not load: {' '.join(str(error).split())}; see edgetl doctor") from error
    module: ModuleType = driver
    return module


class Cuda:
    """Memory, streams and events in the primary context.

    PyCUDA frees what it allocated only in a thread in which the context is current: all that is made here is to be
    used, and freed, inside ``current``.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        with self.explained("no CUDA device can be used"):
            driver.init()
            self._context = driver.Device(0).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current for this thread; what torch has current comes back afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """CUDA's errors as the user's: what failed, and on memory how much there is."""
        try:
            yield
        except self.driver.MemoryError as error:
            free, total = self._memory_mb()
            raise EdgetlError(
                f"{what}: out of memory on the device ({free} of {total} MB are free); close other programs, or build "
                "the engine with a smaller batch"
            ) from error
        except self.driver.Error as error:
            raise EdgetlError(f"{what}: CUDA says {' '.join(str(error).split())}") from error

    def _memory_mb(self) -> tuple[int, int]:
        try:
            free, total = self.driver.mem_get_info()
        except self.driver.Error:
            return 0, 0
        return free // _MB, total // _MB
