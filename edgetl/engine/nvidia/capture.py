"""CUDA graphs: an engine's work is recorded once and launched as one. PyCUDA lacks them; cuda-bindings have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgetl.errors import EdgetlError


class CapturedGraph:
    """Recorded work of a stream.

    Args:
        handle: the stream's handle.
        queue: queues the work. It must have run once before, because libraries allocate memory on the first run.

    Raises:
        EdgetlError: cuda-bindings are not installed, or the work cannot be captured.
    """

    def __init__(self, handle: int, queue: Callable[[], object]) -> None:
        self._cuda = cuda = _bindings()
        self._stream = cuda.CUstream(handle)
        # Relaxed: in the other modes an allocation by any thread would break the capture off.
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        self._ask(cuda.cuStreamBeginCapture(self._stream, mode))
        try:
            queue()
        finally:  # after a failure too: a stream that is being captured runs nothing
            (graph,) = self._ask(cuda.cuStreamEndCapture(self._stream))
        try:
            (self._graph,) = self._ask(cuda.cuGraphInstantiate(graph, 0))
        finally:
            cuda.cuGraphDestroy(graph)

    def launch(self) -> None:
        self._ask(self._cuda.cuGraphLaunch(self._graph, self._stream))

    def free(self) -> None:
        self._cuda.cuGraphExecDestroy(self._graph)

    def _ask(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """The results in an answer of the bindings, which begins with an error code."""
        code, *results = answer
        if code != self._cuda.CUresult.CUDA_SUCCESS:
            raise EdgetlError(f"a CUDA graph cannot be captured or launched: {code.name}; leave --cuda-graph out")
        return tuple(results)


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        raise EdgetlError(
            "CUDA graphs need cuda-bindings, which are not installed; install those of the driver's CUDA, such as: "
            "pip install 'cuda-bindings==12.*'"
        ) from None
    return driver
