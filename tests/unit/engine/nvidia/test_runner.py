"""The runner of every generation, on a stand-in GPU that does nothing before it is waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgetl.commands.study_command import TerminalReporter
from edgetl.engine.nvidia import capture
from edgetl.engine.nvidia.runner import NvidiaEngine
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.stages.measuring import StoppingRule
from edgetl.stages.profile_files import ProfileRequest, by_path, profile_files
from tests.unit.engine.nvidia.standin_cuda import Gpu
from tests.unit.engine.nvidia.standin_tensorrt import GENERATIONS, Play

Array = NDArray[np.float32]
Load = Callable[..., NvidiaEngine]


def reference(graph: Path, images: Array) -> Array:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    result: Array = session.run(["combined"], {"images": images})[0]
    return result


@pytest.fixture
def load(graph: Path, tmp_path: Path) -> Load:
    """Build an engine of the graph that is there now, and load it."""

    def load(name: str = "e.engine", trust: bool = False, **run: Any) -> NvidiaEngine:
        build_engine(get_runtime("tensorrt"), graph, tmp_path / name, BuildOptions(max_batch=8))
        engine = load_engine(tmp_path / name, trust=trust, run=RunOptions(**run))
        assert isinstance(engine, NvidiaEngine)
        return engine

    return load


@pytest.mark.parametrize("version", GENERATIONS)
@pytest.mark.parametrize("run", [{}, {"scratch": "one"}, {"cuda_graph": True}], ids=["plain", "scratch", "graph"])
def test_every_generation_says_what_the_graph_says(
    version: str, run: dict[str, Any], graph: Path, images: Array, generation: Callable[[str], Play], load: Load
) -> None:
    generation(version)
    with load(**run) as engine:
        assert engine.shapes == ((1, 3, 16, 16),)
        for batch in (images, images[:1], images[:3], images):
            np.testing.assert_allclose(engine.infer(batch)["combined"], reference(graph, batch), atol=1e-6)


def test_results_stay_when_the_buffers_are_used_again(
    images: Array, generation: Callable[[str], Play], load: Load
) -> None:
    generation("10.3.0")
    with load() as engine:
        first = engine.infer(images[:1])["combined"]
        kept = first.copy()
        engine.infer(images[1:2])
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("scratch", [None, "one"])
def test_engines_run_side_by_side_from_one_thread(
    scratch: str | None, graph: Path, images: Array, generation: Callable[[str], Play], load: Load, gpu: Gpu
) -> None:
    generation("10.3.0")
    engines = [load(f"{number}.engine", scratch=scratch) for number in range(3)]
    pending = [engine.start(images[n : n + 1]) for n, engine in enumerate(engines)]
    assert all(gpu.streams[stream].queue for stream in gpu.streams), "all are under way at once"
    for n in (2, 0, 1):
        np.testing.assert_allclose(pending[n].result()["combined"], reference(graph, images[n : n + 1]), atol=1e-6)
        assert pending[n].result() is pending[n].result()
    for engine in engines:
        engine.close()


def test_one_can_ask_whether_an_inference_is_done_without_waiting_for_it(
    images: Array, generation: Callable[[str], Play], load: Load, gpu: Gpu
) -> None:
    generation("10.3.0")
    with load() as engine:
        pending = engine.start(images)
        assert not pending.ready
        while any(gpu.streams[stream].queue for stream in gpu.streams):
            for stream in gpu.streams.values():
                stream.queue.pop(0)()
        assert pending.ready
        pending.result()
        assert pending.ready


def test_shared_scratch_is_as_large_as_the_largest_needs(
    graph: Path, variants: dict[str, onnx.ModelProto], generation: Callable[[str], Play], load: Load, gpu: Gpu
) -> None:
    generation("10.3.0")
    apart = [load(f"{n}.engine") for n in range(2)]
    plain = gpu.used
    shared = [load(f"{n}.engine", scratch="one") for n in range(2)]
    assert gpu.used - plain == plain + 8192, "8 nodes need 8000 bytes, once"
    for engine in (*apart, *shared):
        engine.close()
    assert gpu.used == 0 and gpu.pinned == 0


def test_shared_scratch_moves_when_a_larger_engine_joins(
    graph: Path, images: Array, generation: Callable[[str], Play], load: Load, tmp_path: Path
) -> None:
    generation("10.3.0")
    small = load("small.engine", scratch="one")
    expected = small.infer(images)["combined"]
    model = onnx.load(graph)
    model.graph.node.append(helper.make_node("Identity", ["combined"], ["again"]))
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, ["N", 3]))
    onnx.save(model, graph)
    pending = small.start(images)
    large = load("large.engine", scratch="one")
    np.testing.assert_allclose(pending.result()["combined"], expected, atol=1e-6)
    np.testing.assert_allclose(large.infer(images)["again"], expected, atol=1e-6)
    np.testing.assert_allclose(small.infer(images)["combined"], expected, atol=1e-6)
    large.close()
    np.testing.assert_allclose(small.infer(images)["combined"], expected, atol=1e-6)
    small.close()


def test_nothing_is_left_after_many_inferences_and_loads(
    images: Array, generation: Callable[[str], Play], load: Load, gpu: Gpu
) -> None:
    generation("10.3.0")
    with load() as engine:
        engine.infer(images)
        used, pinned = gpu.used, gpu.pinned
        for _ in range(100):
            engine.infer(images)
        assert (gpu.used, gpu.pinned) == (used, pinned)
    for _ in range(20):
        with load(scratch="one", cuda_graph=True) as engine:
            engine.infer(images)
    assert (gpu.used, gpu.pinned, gpu.depth) == (0, 0, 0)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((np.zeros((1, 3, 8, 9), np.float32),), "images as float32 (1 to 8) x 3 x 16 x 16, found float32 1 x 3 x 8"),
        ((np.zeros((9, 3, 16, 16), np.float32),), "found float32 9 x 3 x 16 x 16"),
        ((np.zeros((0, 3, 16, 16), np.float32),), "found float32 0 x 3 x 16 x 16"),
        ((np.zeros((1, 3, 16, 16), np.float64),), "found float64"),
        ((np.zeros((3, 16, 16), np.float32),), "found float32 3 x 16 x 16"),
        ((), "takes 1 inputs (images), found 0"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_one_line_and_the_engine_goes_on(
    inputs: tuple[Any, ...], message: str, images: Array, generation: Callable[[str], Play], load: Load
) -> None:
    generation("10.3.0")
    with load() as engine:
        with pytest.raises(EdgetlError) as caught:
            engine.infer(*inputs)
        assert message in str(caught.value)
        assert engine.infer(images)["combined"].shape == (5, 3)


def test_a_second_inference_too_early_is_refused(images: Array, generation: Callable[[str], Play], load: Load) -> None:
    generation("10.3.0")
    with load() as engine:
        pending = engine.start(images)
        with pytest.raises(EdgetlError, match="is at work; take the result"):
            engine.start(images)
        pending.result()
        engine.infer(images)


def test_too_little_memory_is_one_line(images: Array, generation: Callable[[str], Play], load: Load, gpu: Gpu) -> None:
    generation("10.3.0")
    gpu.capacity = 20_000
    with pytest.raises(EdgetlError, match=r"e\.engine cannot be loaded: out of memory on the device"):
        load()
    assert gpu.depth == 0
    gpu.capacity = 2**30
    load().infer(images)


def test_an_output_whose_size_only_the_data_tell(graph: Path, generation: Callable[[str], Play], load: Load) -> None:
    generation("10.3.0")
    nodes = [helper.make_node("NonZero", ["images"], ["found"])]
    values = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3])]
    output = helper.make_tensor_value_info("found", TensorProto.INT64, [2, "K"])
    model = helper.make_model(
        helper.make_graph(nodes, "nonzero", values, [output]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, graph)
    with load() as engine:
        for batch in (np.eye(3, dtype=np.float32), np.zeros((2, 3), np.float32), np.ones((4, 3), np.float32)):
            np.testing.assert_array_equal(engine.infer(batch)["found"], np.stack(np.nonzero(batch)))
    with (
        load(cuda_graph=True) as engine,
        pytest.raises(EdgetlError, match="only the data tell; leave --cuda-graph out"),
    ):
        engine.infer(np.eye(3, dtype=np.float32))


def test_a_graph_that_computes_something_else_is_refused(
    images: Array, generation: Callable[[str], Play], load: Load, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation("10.3.0")
    monkeypatch.setattr(gpu.bindings, "cuGraphLaunch", lambda graph, stream: (_spoil(gpu, stream),))
    with load(cuda_graph=True) as engine, pytest.raises(EdgetlError, match="computes another combined in a CUDA graph"):
        engine.infer(images)


def _spoil(gpu: Gpu, stream: Any) -> Any:
    def spoil() -> None:
        for memory in gpu.alive.values():
            memory[...] = 0

    stream.add(spoil)
    return gpu.bindings.CUresult.CUDA_SUCCESS


def test_names_of_cuda_bindings_are_the_real_ones(gpu: Gpu) -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings are not installed")
    for name in [name for name in dir(gpu.bindings) if name.startswith(("cu", "CU"))]:
        assert hasattr(real, name), name
    for kind in (gpu.bindings.CUresult, gpu.bindings.CUstreamCaptureMode):
        assert set(kind.__members__) <= set(getattr(real, kind.__name__).__members__)
    assert capture.CapturedGraph.__module__ == "edgetl.engine.nvidia.capture"


def test_names_of_pycuda_are_the_real_ones(gpu: Gpu) -> None:
    real = pytest.importorskip(
        "pycuda.driver", reason="PyCUDA is not installed, or finds no driver", exc_type=ImportError
    )
    for name in [name for name in dir(gpu.driver) if not name.startswith("_")]:
        assert hasattr(real, name), name
    for kind in ("Stream", "Event", "Context", "Device", "DeviceAllocation"):
        own = {"queue", "capturing", "add", "finish", "stream", "token"}
        names = {name for name in vars(getattr(gpu.driver, kind)) if not name.startswith("_")} - own
        assert all(hasattr(getattr(real, kind), name) for name in names)


@pytest.mark.slow
def test_damaged_engines_are_profiled_only_if_they_are_trusted(
    graph: Path, tmp_path: Path, generation: Callable[[str], Play], load: Load
) -> None:
    generation("10.3.0")
    for name in ("a.engine", "b.engine"):
        load(name).close()
    files, quick = (tmp_path / "a.engine", tmp_path / "b.engine"), StoppingRule(seconds=0.1)
    profile = profile_files(ProfileRequest(by_path(files), quick, RunOptions(cuda_graph=True)), TerminalReporter())
    assert [row.runtime for row in profile.deployments] == ["tensorrt", "tensorrt"]
    assert len(profile.comparisons) == 1
    for row in profile.deployments:
        assert row.latency_ms is not None and row.latency_ms.device is not None
        assert row.latency_ms.device.compute.p50 == 0.5
        assert row.latency_ms.device.latency.p50 == 1.5
    (tmp_path / "a.engine").write_bytes((tmp_path / "b.engine").read_bytes() + b"\n")
    with pytest.raises(EdgetlError, match="is damaged"):
        profile_files(ProfileRequest(by_path(files[:1]), quick), TerminalReporter())


def test_without_transfers_nothing_is_copied(images: Array, generation: Callable[[str], Play], load: Load) -> None:
    generation("10.3.0")
    with load(transfers=False, timed=True) as engine:
        assert engine.infer(images) == {}
        assert engine.infer(images * 0.0) == {}
        parts = engine.take_device_times()
        assert parts.shape == (2, 4)
        assert engine.take_device_times().shape == (0, 4)
