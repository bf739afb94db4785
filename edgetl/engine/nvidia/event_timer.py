"""The parts of an inference's time, told by events on its stream as trtexec tells them."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from edgetl.arrays import Float64Array


class CudaEventTimer:
    """Four events around copying in, executing, and copying out; and the host's clock around queueing the execution."""

    def __init__(self, driver: Any) -> None:
        self._events = [driver.Event() for _ in range(4)]
        self._enqueue_ms = 0.0
        self._rows: list[tuple[float, float, float, float]] = []

    def mark(self, number: int, stream: Any) -> None:
        """Event ``number``: 0 before H2D, 1 before the execution, 2 behind it, 3 behind D2H."""
        self._events[number].record(stream)

    def enqueue(self, execute: Callable[[], object]) -> None:
        begin = time.perf_counter()
        execute()
        self._enqueue_ms = (time.perf_counter() - begin) * 1e3

    def done(self) -> None:
        """The stream has passed the last event."""
        self._events[3].synchronize()
        to_device, executed, to_host = (float(after.time_since(before)) for before, after in pairwise(self._events))
        self._rows.append((to_device, executed, to_host, self._enqueue_ms))

    def take(self) -> Float64Array:
        """Milliseconds of every inference since the last time: inferences x (H2D, compute, D2H, enqueue)."""
        rows, self._rows = self._rows, []
        return np.array(rows, dtype=np.float64).reshape(-1, 4)
