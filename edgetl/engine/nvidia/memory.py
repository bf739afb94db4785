"""Buffers for inputs and outputs, and scratch memory that engines share."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from edgetl.arrays import AnyArray
from edgetl.engine.nvidia.cuda import Cuda

_ALIGNMENT = 256  # bytes, which TensorRT expects of scratch memory


class Buffer:
    """Pinned memory on the host and memory on the device for one tensor, large enough for all of its shapes."""

    def __init__(self, cuda: Cuda, dtype: npt.DTypeLike, elements: int) -> None:
        self._driver = cuda.driver
        count = max(elements, 1)  # CUDA allocates no empty memory, and an output may be empty
        self._host = cuda.driver.pagelocked_empty(count, dtype)
        self._device = cuda.driver.mem_alloc(count * np.dtype(dtype).itemsize)

    @property
    def address(self) -> int:
        return int(self._device)

    def on_host(self, shape: tuple[int, ...]) -> AnyArray:
        """The beginning of the pinned memory as an array."""
        view: AnyArray = self._host[: prod(shape)].reshape(shape)
        return view

    def to_device(self, shape: tuple[int, ...], stream: Any) -> None:
        if prod(shape):
            self._driver.memcpy_htod_async(self._device, self.on_host(shape), stream)

    def to_host(self, shape: tuple[int, ...], stream: Any) -> None:
        if prod(shape):
            self._driver.memcpy_dtoh_async(self.on_host(shape), self._device, stream)

    def free(self) -> None:
        self._device.free()
        self._host.base.free()


class Scratch:
    """Device memory for intermediate results of engines that never run at once.

    Each engine waits on the device until the one before it is done, even on another stream.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._memory: Any = None
        self._size = 0
        self._users: dict[int, Callable[[int, int], object]] = {}
        self._last: Any = None

    @property
    def size(self) -> int:
        return self._size

    def join(self, user: int, size: int, place: Callable[[int, int], object]) -> None:
        """Share memory of ``size`` bytes or more; ``place`` is called with address and size whenever they change."""
        self._users[user] = place
        if size <= self._size:
            if self._memory is not None:
                place(int(self._memory), self._size)
            return
        self.wait()
        rounded = -(-size // _ALIGNMENT) * _ALIGNMENT
        fresh = self._cuda.driver.mem_alloc(rounded)
        old, self._memory, self._size = self._memory, fresh, rounded
        for tell in self._users.values():
            tell(int(fresh), rounded)
        if old is not None:  # only now: every engine has the new address
            old.free()

    def enter(self, stream: Any) -> None:
        if self._last is not None:
            stream.wait_for_event(self._last)

    def leave(self, done: Any) -> None:
        """Note that the work queued before the event ``done`` uses the memory."""
        self._last = done

    def wait(self) -> None:
        if self._last is not None:
            self._last.synchronize()

    def part(self, user: int) -> None:
        """Remove an engine; with the last one the memory is freed."""
        self.wait()
        self._users.pop(user, None)
        if not self._users and self._memory is not None:
            self._memory.free()
            self._memory, self._size, self._last = None, 0, None


# Weak: a group is forgotten when its last engine is.
_groups: WeakValueDictionary[str, Scratch] = WeakValueDictionary()


def shared_scratch(cuda: Cuda, group: str) -> Scratch:
    """The scratch memory of a group of engines."""
    scratch = _groups.get(group)
    if scratch is None:
        scratch = _groups[group] = Scratch(cuda)
    return scratch
