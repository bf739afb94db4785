"""PyCUDA's memory, streams and events as the runner uses them, without TensorRT."""

from __future__ import annotations

import numpy as np

from edgetl.engine.nvidia.cuda import Cuda
from edgetl.engine.nvidia.memory import Buffer, Scratch


def test_what_goes_to_the_device_comes_back(cuda: Cuda) -> None:
    with cuda.current():
        stream, buffer = cuda.driver.Stream(), Buffer(cuda, np.float32, 1000)
        values = np.random.default_rng(0).random((10, 100), dtype=np.float32)
        buffer.on_host((10, 100))[...] = values
        buffer.to_device((10, 100), stream)
        stream.synchronize()
        buffer.on_host((10, 100))[...] = 0.0
        buffer.to_host((10, 100), stream)
        stream.synchronize()
        np.testing.assert_array_equal(buffer.on_host((10, 100)), values)
        buffer.free()


def test_events_tell_the_time_between_them(cuda: Cuda) -> None:
    with cuda.current():
        stream, buffer = cuda.driver.Stream(), Buffer(cuda, np.uint8, 2**24)
        begun, done = cuda.driver.Event(), cuda.driver.Event()
        begun.record(stream)
        buffer.to_device((2**24,), stream)
        done.record(stream)
        done.synchronize()
        assert done.time_since(begun) > 0.0
        buffer.free()


def test_buffers_and_scratch_give_everything_back(cuda: Cuda) -> None:
    with cuda.current():
        before = cuda.driver.mem_get_info()[0]
        for _ in range(200):
            buffer, scratch = Buffer(cuda, np.uint8, 2**22), Scratch(cuda)
            scratch.join(1, 2**22, lambda address, size: None)
            scratch.join(2, 2**23, lambda address, size: None)
            assert scratch.size == 2**23
            scratch.part(1)
            scratch.part(2)
            buffer.free()
        assert before - cuda.driver.mem_get_info()[0] <= 2**23


def test_the_context_is_the_primary_one(cuda: Cuda) -> None:
    with cuda.current(), cuda.current():
        assert cuda.driver.Context.get_current() is not None
