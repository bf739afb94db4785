"""Run engines of every TensorRT: each has buffers that are allocated once, and a stream and events of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from edgetl.arrays import AnyArray, Float64Array
from edgetl.engine.layer_times import LayerTimes, from_runs
from edgetl.engine.nvidia.capture import CapturedGraph
from edgetl.engine.nvidia.contexts import OutputShapes, RuntimeCache, make_context, scratch_size
from edgetl.engine.nvidia.cuda import Cuda, primary_context
from edgetl.engine.nvidia.deserialize import DeserializedEngine, deserialise
from edgetl.engine.nvidia.device_times import CudaEventTimer, make_profiler
from edgetl.engine.nvidia.engine_io import EngineIO, Shapes, check_inputs, read_ports
from edgetl.engine.nvidia.generations import TensorRTPackage, has
from edgetl.engine.nvidia.memory import Buffer, Scratch, shared_scratch
from edgetl.engine.options import BuildOptions, RunOptions
from edgetl.errors import EdgetlError

# How far a captured graph may be from the plain run, relative to the largest output: kernels may add in another order.
_ROUNDING = 1e-3


def load(product: TensorRTPackage, path: Path, options: BuildOptions, run: RunOptions) -> NvidiaEngine:
    """Load an engine file.

    Raises:
        EdgetlError: PyCUDA is missing, TensorRT does not take the file, or the device's memory does not suffice.
    """
    cuda = primary_context()
    with cuda.current(), cuda.explained(f"{path.name} cannot be loaded"):
        return NvidiaEngine(path.name, deserialise(product, path, options), cuda, run)


class NvidiaEngine:
    """A loaded engine. One inference is under way at a time; several engines may be, from one thread."""

    def __init__(self, name: str, plan: DeserializedEngine, cuda: Cuda, run: RunOptions) -> None:
        self.name = name
        self._plan, self._cuda, self._run = plan, cuda, run
        self._cache = RuntimeCache.of(plan, run)
        self._context = make_context(plan, run, self._cache)
        if self._context is None:
            raise EdgetlError(f"{name} cannot be loaded: {_reason(plan)}; close other programs to free memory")
        self._inputs, self._outputs = read_ports(plan)
        self._buffers = {port.name: Buffer(cuda, port.dtype, port.elements) for port in self._inputs}
        self._stream = cuda.driver.Stream()
        # The host sleeps while it waits for a blocking event, and spins for another one, as in trtexec.
        waiting = () if run.spin_wait else (cuda.driver.event_flags.BLOCKING_SYNC,)
        self._begun, self._done = cuda.driver.Event(), cuda.driver.Event(*waiting)
        self._stopwatch = CudaEventTimer(cuda.driver) if run.timed else None
        self._on_device: Shapes | None = None
        self._scratch = self._join_scratch()
        self._graphs: dict[Shapes, CapturedGraph] = {}
        self._shapes: Shapes = ()
        self._under_way: PendingInference | None = None
        for port in self._inputs:
            self._context.set_tensor_address(port.name, self._buffers[port.name].address)
        # With the largest inputs, TensorRT can tell how large the outputs become.
        self._set_shapes(tuple(port.most for port in self._inputs))
        self._late = OutputShapes(plan.trt, self._context, [port.name for port in self._outputs])
        for port in self._outputs:
            shape = self._shape_of(port)
            elements = prod(shape)
            if -1 in shape:
                elements = int(self._context.get_max_output_size(port.name)) // port.dtype.itemsize
            self._buffers[port.name] = Buffer(cuda, port.dtype, elements)
            self._context.set_tensor_address(port.name, self._buffers[port.name].address)
            self._late.place(port.name, self._buffers[port.name].address)

    @property
    def shapes(self) -> Shapes:
        return tuple(port.least for port in self._inputs)

    @property
    def scratch_mb(self) -> float:
        """MiB that TensorRT says intermediate results need on the device."""
        return scratch_size(self._plan) / 2**20

    def infer(self, *inputs: AnyArray) -> dict[str, AnyArray]:
        return self.start(*inputs).result()

    def start(self, *inputs: AnyArray) -> PendingInference:
        """Queue an inference and return at once, so that several engines can run at the same time.

        Raises:
            EdgetlError: an inference is under way, or the engine does not take inputs of this shape or type.
        """
        if self._under_way is not None:
            raise EdgetlError(f"{self.name} is at work; take the result of its last inference first")
        shapes = check_inputs(self.name, self._inputs, inputs)
        with self._cuda.current(), self._cuda.explained(f"{self.name} cannot run"):
            self._set_shapes(shapes)
            if self._scratch is not None:
                self._scratch.enter(self._stream)
            self._mark(0)
            # Without transfers, inputs that lie on the device already are not copied again.
            self._copy_in(inputs, shapes)
            self._mark(1)
            if self._stopwatch is None:
                self._execute(shapes)
            else:
                self._stopwatch.enqueue(partial(self._execute, shapes))
            self._mark(2)
            self._copy_out()
            self._mark(3)
            self._done.record(self._stream)
            if self._scratch is not None:
                self._scratch.leave(self._done)
        self._under_way = PendingInference(self)
        return self._under_way

    def _mark(self, number: int) -> None:
        if self._stopwatch is not None:
            self._stopwatch.mark(number, self._stream)

    def _copy_in(self, inputs: Sequence[AnyArray], shapes: Shapes) -> None:
        if not self._run.transfers and self._on_device == shapes:
            return
        for port, value in zip(self._inputs, inputs, strict=True):
            buffer = self._buffers[port.name]
            np.copyto(buffer.on_host(value.shape), value)
            buffer.to_device(value.shape, self._stream)
        self._on_device = shapes

    def _copy_out(self) -> None:
        if self._run.transfers:
            for port in self._outputs:
                if (shape := self._known_shape(port)) is not None:
                    self._buffers[port.name].to_host(shape, self._stream)

    def take_device_times(self) -> Float64Array:
        """Times of every inference since the last call, for engines that are ``timed``; see `CudaEventTimer.take`."""
        assert self._stopwatch is not None, "RunOptions(timed=True) keeps them"
        return self._stopwatch.take()

    def time_layers(self, inputs: Sequence[AnyArray], runs: int) -> LayerTimes:
        """Time each layer over ``runs`` inferences, as trtexec does with ``--dumpProfile``."""
        self.infer(*inputs)  # which also leaves the inputs on the device
        profiler, whole = make_profiler(self._plan.trt), []
        with self._cuda.current(), self._cuda.explained(f"{self.name} cannot run"):
            self._context.profiler = profiler
            # Otherwise queueing would wait for the device, and the whole inference would take longer.
            self._context.enqueue_emits_profile = False
            for _ in range(runs):
                profiler.begin()
                self._begun.record(self._stream)
                self._enqueue()
                self._done.record(self._stream)
                self._done.synchronize()
                whole.append(float(self._done.time_since(self._begun)))
                if not self._context.report_to_profiler():
                    raise EdgetlError(f"{self.name} tells no times of its layers: {_reason(self._plan)}")
        return from_runs("TensorRT's profiler", profiler.runs, whole)

    def close(self) -> None:
        """Free all memory; a second call does nothing."""
        if self._context is None:
            return
        with self._cuda.current(), self._cuda.explained(f"{self.name} cannot be unloaded"):
            self._stream.synchronize()
            if self._cache is not None:
                self._cache.keep()
            for graph in self._graphs.values():
                graph.free()
            self._graphs.clear()
            # TensorRT's objects before the buffers: the context still knows their addresses.
            self._late.forget()
            self._context = None
            if self._scratch is not None:
                self._scratch.part(id(self))
            for buffer in self._buffers.values():
                buffer.free()
            del self._plan, self._cache

    def __enter__(self) -> NvidiaEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # At the end of the process CUDA may be unloaded before the engine.
        with suppress(Exception):
            self.close()

    def is_done(self) -> bool:
        """Whether the device has finished the inference under way."""
        with self._cuda.current(), self._cuda.explained(f"{self.name} failed"):
            return bool(self._done.query())

    def collect(self) -> dict[str, AnyArray]:
        """Wait for the inference under way and return copies of its outputs by name."""
        with self._cuda.current(), self._cuda.explained(f"{self.name} failed"):
            self._under_way = None
            self._done.synchronize()
            if self._stopwatch is not None:
                self._stopwatch.done()
            if not self._run.transfers:
                return {}
            outputs = {}
            for port in self._outputs:
                buffer, shape = self._buffers[port.name], self._known_shape(port)
                if shape is None:  # only now, after running, is it known
                    shape = self._late.shape(port.name)
                    buffer.to_host(shape, self._stream)
                    self._stream.synchronize()
                outputs[port.name] = buffer.on_host(shape).copy()
            return outputs

    def _set_shapes(self, shapes: Shapes) -> None:
        if shapes == self._shapes:
            return
        for port, shape in zip(self._inputs, shapes, strict=True):
            if not self._context.set_input_shape(port.name, shape):
                raise EdgetlError(f"{self.name} refuses {list(shape)} for {port.name}: {_reason(self._plan)}")
        self._shapes = shapes

    def _execute(self, shapes: Shapes) -> None:
        graph = self._graphs.get(shapes)
        if graph is not None:
            graph.launch()
        elif self._run.cuda_graph and not has(self._plan.trt, "graph strategy"):  # else TensorRT-RTX captures by itself
            self._capture(shapes)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EdgetlError(f"{self.name} cannot run: {_reason(self._plan)}")

    def _capture(self, shapes: Shapes) -> None:
        """Run plainly, capture a CUDA graph, run that too, and compare the outputs."""
        if self._late.names:
            raise EdgetlError(f"{self.name} has outputs whose size only the data tell; leave --cuda-graph out")
        self._enqueue()
        expected = self._outputs_now()
        graph = CapturedGraph(self._stream.handle, self._enqueue)
        graph.launch()
        for name, value in self._outputs_now().items():
            if not _agree(value, expected[name]):
                graph.free()
                raise EdgetlError(f"{self.name} computes another {name} in a CUDA graph; leave --cuda-graph out")
        self._graphs[shapes] = graph

    def _outputs_now(self) -> dict[str, AnyArray]:
        for port in self._outputs:
            self._buffers[port.name].to_host(self._shape_of(port), self._stream)
        self._stream.synchronize()
        return {port.name: self._buffers[port.name].on_host(self._shape_of(port)).copy() for port in self._outputs}

    def _shape_of(self, port: EngineIO) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(port.name))

    def _known_shape(self, port: EngineIO) -> tuple[int, ...] | None:
        return None if port.name in self._late.names else self._shape_of(port)

    def _join_scratch(self) -> Scratch | None:
        if self._run.scratch is None:
            return None
        scratch, context, trt = shared_scratch(self._cuda, self._run.scratch), self._context, self._plan.trt

        def place(address: int, size: int) -> None:
            if has(trt, "sized device memory"):
                context.set_device_memory(address, size)
            else:
                context.device_memory = address

        scratch.join(id(self), scratch_size(self._plan), place)
        return scratch


class PendingInference:
    """An inference that was started."""

    def __init__(self, engine: NvidiaEngine) -> None:
        self._engine = engine
        self._outputs: dict[str, AnyArray] | None = None

    @property
    def ready(self) -> bool:
        """Whether `result` would return at once."""
        return self._outputs is not None or self._engine.is_done()

    def result(self) -> dict[str, AnyArray]:
        """Wait for the inference and return its outputs by name."""
        if self._outputs is None:
            self._outputs = self._engine.collect()
        return self._outputs


def _reason(plan: DeserializedEngine) -> str:
    return plan.log.errors[-1][:300] if plan.log.errors else "TensorRT gave no reason"


def _agree(found: AnyArray, expected: AnyArray) -> bool:
    if not np.issubdtype(found.dtype, np.floating):
        return bool(np.array_equal(found, expected))
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(np.allclose(found, expected, rtol=0.0, atol=_ROUNDING * scale, equal_nan=True))
