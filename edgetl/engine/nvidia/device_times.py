"""Times that the GPU measures: of the parts of an inference by CUDA events, of its layers by TensorRT's profiler."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from edgetl.arrays import Float64Array


class CudaEventTimer:
    """Times the parts of an inference as trtexec defines them.

    Four events stand around copying in, executing and copying out; the host's clock times queueing the execution.
    """

    def __init__(self, driver: Any) -> None:
        self._events = [driver.Event() for _ in range(4)]
        self._enqueue_ms = 0.0
        self._rows: list[tuple[float, float, float, float]] = []

    def mark(self, number: int, stream: Any) -> None:
        """Record event ``number``: 0 before H2D, 1 before the execution, 2 after it, 3 after D2H."""
        self._events[number].record(stream)

    def enqueue(self, execute: Callable[[], object]) -> None:
        begin = time.perf_counter()
        execute()
        self._enqueue_ms = (time.perf_counter() - begin) * 1e3

    def done(self) -> None:
        """Wait for the last event and keep the times of the inference."""
        self._events[3].synchronize()
        to_device, executed, to_host = (float(after.time_since(before)) for before, after in pairwise(self._events))
        self._rows.append((to_device, executed, to_host, self._enqueue_ms))

    def take(self) -> Float64Array:
        """Milliseconds of every inference since the last call: inferences x (H2D, compute, D2H, enqueue)."""
        rows, self._rows = self._rows, []
        return np.array(rows, dtype=np.float64).reshape(-1, 4)


def make_profiler(trt: Any) -> Any:
    """An object for ``IExecutionContext.profiler``; ``runs`` holds each run's milliseconds by layer."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: list[dict[tuple[str, str], float]] = []

        def begin(self) -> None:
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            # A layer that runs several times in an inference, as in a loop, is reported each time.
            run, key = self.runs[-1], (layer_name, "")
            run[key] = run.get(key, 0.0) + ms

    return Profiler()
