"""The device's primary context through PyCUDA: torch and TensorRT use it too, so that all can share memory.

``pycuda.autoinit`` makes another context, in which TensorRT crashes when torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from edgetl.errors import EdgetlError, MissingExtraError

_MB = 2**20


@lru_cache(maxsize=1)
def primary_context() -> Cuda:
    """The context of the first GPU that CUDA shows.

    Raises:
        EdgetlError: PyCUDA is not installed, or there is no usable GPU.
    """
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        raise MissingExtraError("running TensorRT engines", "tensorrt", error) from error
    except ImportError as error:
        raise EdgetlError(f"PyCUDA does not load: {' '.join(str(error).split())}; see edgetl doctor") from error
    return Cuda(driver)


class Cuda:
    """Memory, streams and events in the primary context.

    Use and free what is made here inside ``current``: PyCUDA frees memory only in a thread whose current context it is.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        with self.explained("no CUDA device can be used"):
            driver.init()
            self._context = driver.Device(0).retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread for the block; torch's context comes back afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turn CUDA's errors in the block into EdgetlError, with the free memory where it ran out."""
        try:
            yield
        except self.driver.MemoryError as error:
            try:
                free, total = self.driver.mem_get_info()
            except self.driver.Error:  # after an asynchronous failure every call fails
                free, total = 0, 0
            raise EdgetlError(
                f"{what}: out of memory on the device ({free // _MB} of {total // _MB} MB are free); close other "
                "programs, or build the engine with a smaller batch"
            ) from error
        except self.driver.Error as error:
            raise EdgetlError(f"{what}: CUDA says {' '.join(str(error).split())}") from error
