"""A GPU that keeps its memory on the host and does nothing until it is waited for.

It stands in for ``pycuda.driver`` and ``cuda.bindings.driver`` where there is no GPU. Work on a stream is queued, and
done when somebody synchronises: whoever reads too early, uses memory that was freed, or forgets to make the context
current is found out. Its names are held against the real packages by tests.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np

POISON = 0xAB


class Gpu:
    """What one simulated device holds; ``driver`` plays PyCUDA, ``bindings`` plays cuda-bindings."""

    def __init__(self, capacity: int = 2**30) -> None:
        self.capacity = capacity
        self.alive: dict[int, np.ndarray[Any, Any]] = {}
        self.pinned = 0
        self.depth = 0
        self.streams: dict[int, Any] = {}
        self.driver = _driver(self)
        self.bindings = _bindings(self)

    @property
    def used(self) -> int:
        return sum(memory.nbytes for memory in self.alive.values())

    def view(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Device memory as an array; only memory that is allocated."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for start, memory in self.alive.items():
            if start <= address and address + size <= start + memory.nbytes:
                return memory[address - start : address - start + size].view(dtype).reshape(shape)
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def check_current(self) -> None:
        assert self.depth > 0, "the context is not current"


def _driver(gpu: Gpu) -> Any:
    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001  # as PyCUDA calls it
        pass

    class DeviceAllocation:
        def __init__(self, memory: np.ndarray[Any, Any]) -> None:
            self._address = memory.ctypes.data
            gpu.alive[self._address] = memory

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            gpu.check_current()
            del gpu.alive[self._address]

    class Stream:
        def __init__(self) -> None:
            gpu.check_current()
            self.queue: list[Callable[[], None]] = []
            self.capturing: list[Callable[[], None]] | None = None
            self.handle = id(self)
            gpu.streams[self.handle] = self

        def add(self, work: Callable[[], None]) -> None:
            gpu.check_current()
            (self.queue if self.capturing is None else self.capturing).append(work)

        def synchronize(self) -> None:
            gpu.check_current()
            while self.queue:
                self.queue.pop(0)()

        def wait_for_event(self, event: Any) -> None:
            self.add(event.finish)

    class event_flags:  # noqa: N801
        BLOCKING_SYNC = 1

    class Event:
        def __init__(self, flags: int = 0) -> None:
            gpu.check_current()
            self.stream: Any = None
            self.token: Any = None

        def record(self, stream: Any) -> None:
            self.stream, self.token = stream, (lambda: None)
            stream.add(self.token)

        def finish(self) -> None:
            while self.stream is not None and self.token in self.stream.queue:
                self.stream.queue.pop(0)()

        def query(self) -> bool:
            gpu.check_current()
            return self.token not in self.stream.queue

        def synchronize(self) -> None:
            gpu.check_current()
            self.finish()

        def time_since(self, begun: Any) -> float:
            assert self.token not in self.stream.queue and begun.stream is not None
            return 0.5

    class PinnedBase:
        def __init__(self, size: int) -> None:
            self.size = size
            gpu.pinned += size

        def free(self) -> None:
            gpu.pinned -= self.size

    class Context:
        def push(self) -> None:
            gpu.depth += 1

        @staticmethod
        def pop() -> None:
            gpu.check_current()
            gpu.depth -= 1

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def retain_primary_context(self) -> Context:
            return Context()

    class PinnedArray:
        """A pinned array: numpy's own ``base`` cannot be set, so this hands on what the runner uses."""

        def __init__(self, array: np.ndarray[Any, Any]) -> None:
            self._array = array
            self.base = PinnedBase(array.nbytes)

        def __getitem__(self, key: Any) -> Any:
            return self._array[key]

    class Driver:
        def init(self) -> None:
            pass

        def mem_get_info(self) -> tuple[int, int]:
            gpu.check_current()
            return gpu.capacity - gpu.used, gpu.capacity

        def mem_alloc(self, size: int) -> DeviceAllocation:
            gpu.check_current()
            if gpu.used + size > gpu.capacity:
                raise MemoryError("cuMemAlloc failed: out of memory")
            return DeviceAllocation(np.full(size, POISON, dtype=np.uint8))

        def pagelocked_empty(self, shape: int, dtype: Any) -> Any:
            gpu.check_current()
            size = int(shape) * np.dtype(dtype).itemsize
            return PinnedArray(np.full(size, POISON, dtype=np.uint8).view(dtype))

        def memcpy_htod_async(self, dest: Any, src: np.ndarray[Any, Any], stream: Any) -> None:
            def copy() -> None:
                gpu.view(int(dest), src.shape, src.dtype)[...] = src

            stream.add(copy)

        def memcpy_dtoh_async(self, dest: np.ndarray[Any, Any], src: Any, stream: Any) -> None:
            def copy() -> None:
                dest[...] = gpu.view(int(src), dest.shape, dest.dtype)

            stream.add(copy)

    driver = Driver()
    for kind in (Error, MemoryError, DeviceAllocation, Stream, event_flags, Event, Context, Device):
        setattr(driver, kind.__name__, kind)
    return driver


def _bindings(gpu: Gpu) -> Any:
    class CUresult(enum.IntEnum):
        CUDA_SUCCESS = 0
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900

    class CUstreamCaptureMode(enum.IntEnum):
        CU_STREAM_CAPTURE_MODE_RELAXED = 2

    class Bindings:
        def CUstream(self, handle: int) -> Any:  # noqa: N802
            return gpu.streams[handle]

        def cuStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any]:  # noqa: N802
            assert not stream.queue, "TensorRT's work before a capture has to be waited for"
            stream.capturing = []
            return (CUresult.CUDA_SUCCESS,)

        def cuStreamEndCapture(self, stream: Any) -> tuple[Any, Any]:  # noqa: N802
            graph, stream.capturing = stream.capturing, None
            return CUresult.CUDA_SUCCESS, graph

        def cuGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:  # noqa: N802
            if not graph:
                return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None
            return CUresult.CUDA_SUCCESS, list(graph)

        def cuGraphLaunch(self, graph: Any, stream: Any) -> tuple[Any]:  # noqa: N802
            for work in graph:
                stream.add(work)
            return (CUresult.CUDA_SUCCESS,)

        def cuGraphDestroy(self, graph: Any) -> tuple[Any]:  # noqa: N802
            return (CUresult.CUDA_SUCCESS,)

        def cuGraphExecDestroy(self, graph: Any) -> tuple[Any]:  # noqa: N802
            graph.clear()
            return (CUresult.CUDA_SUCCESS,)

    bindings = Bindings()
    bindings.CUresult, bindings.CUstreamCaptureMode = CUresult, CUstreamCaptureMode  # type: ignore[attr-defined]
    return bindings
