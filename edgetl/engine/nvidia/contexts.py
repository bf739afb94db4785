"""Execution contexts as each TensorRT makes them, their output allocators, and TensorRT-RTX's runtime cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgetl.artifacts.files import write_bytes
from edgetl.artifacts.lock import locked
from edgetl.engine.nvidia.deserialize import DeserializedEngine
from edgetl.engine.nvidia.device import find_device
from edgetl.engine.nvidia.generations import has
from edgetl.engine.nvidia.timing_cache import cache_file
from edgetl.engine.options import RunOptions
from edgetl.errors import EdgetlError


def make_context(plan: DeserializedEngine, run: RunOptions, cache: RuntimeCache | None) -> Any:
    """Make an execution context; None where TensorRT has no memory for it."""
    trt, engine = plan.trt, plan.engine
    managed = run.scratch is not None
    if has(trt, "graph strategy"):
        config = engine.create_runtime_config()
        if managed:
            config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if run.cuda_graph:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if cache is not None:
            cache.use(config)
        return engine.create_execution_context(config)
    if not managed:
        return engine.create_execution_context()
    if has(trt, "memory by strategy"):
        return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    return engine.create_execution_context_without_device_memory()


def scratch_size(plan: DeserializedEngine) -> int:
    """Bytes of device memory that an engine needs for intermediate results."""
    engine = plan.engine
    return int(engine.device_memory_size_v2 if has(plan.trt, "device memory in 64 bits") else engine.device_memory_size)


class OutputShapes:
    """Outputs whose shape depends on the data, such as a detector's: TensorRT asks for memory and reports the shape."""

    def __init__(self, trt: Any, context: Any, outputs: Sequence[str]) -> None:
        # The inputs have their shapes by now: what is still open is known only after running.
        late = [name for name in outputs if -1 in tuple(context.get_tensor_shape(name))]
        self._allocators = {name: make_allocator(trt) for name in late}
        for name, allocator in self._allocators.items():
            context.set_output_allocator(name, allocator)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._allocators)

    def place(self, name: str, address: int) -> None:
        if name in self._allocators:
            self._allocators[name].address = address

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._allocators[name].shape)

    def forget(self) -> None:
        self._allocators.clear()


def make_allocator(trt: Any) -> Any:
    """An output allocator that always returns one buffer, as large as TensorRT says the output may become."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.address = 0
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            del tensor_name, memory, size, alignment
            return self.address

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            del stream
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            del tensor_name
            self.shape = tuple(shape)

    return Allocator()


class RuntimeCache:
    """The kernels that TensorRT-RTX compiled at the first run, kept on disk: one file per device and version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None

    @classmethod
    def of(cls, plan: DeserializedEngine, run: RunOptions) -> RuntimeCache | None:
        if run.runtime_caches is None or not has(plan.trt, "runtime cache"):
            return None
        device = find_device()
        identity = (plan.product.runtime, plan.trt.__version__, device.title, device.capability, device.driver)
        return cls(cache_file(run.runtime_caches, *identity).with_suffix(".kernels"))

    def use(self, config: Any) -> None:
        self._cache = config.create_runtime_cache()
        if self._path.is_file():
            # Its answer does not matter: kernels that TensorRT-RTX does not take, it compiles again.
            self._cache.deserialize(self._path.read_bytes())
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the compiled kernels to the file. A failure only costs time at the next load, so it is no error."""
        content = bytes(memoryview(self._cache.serialize()))
        with suppress(EdgetlError), locked(self._path):
            if not self._path.is_file() or self._path.read_bytes() != content:
                write_bytes(self._path, content)
