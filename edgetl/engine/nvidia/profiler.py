"""TensorRT's own times of its layers, measured with CUDA events inside the engine."""

from __future__ import annotations

from typing import Any


def make_profiler(trt: Any) -> Any:
    """An object for ``IExecutionContext.profiler``; ``runs`` holds the milliseconds of each layer, a run each."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: list[dict[tuple[str, str], float]] = []

        def begin(self) -> None:
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """TensorRT calls it for each layer; one that runs several times in an inference comes several times."""
            run, key = self.runs[-1], (layer_name, "")
            run[key] = run.get(key, 0.0) + ms

    return Profiler()
