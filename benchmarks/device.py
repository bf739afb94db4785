"""Engines on the GPU that is here: the runner against a bare loop, CUDA graphs, several engines side by side and fused.

Latency is the time between CUDA events around an execution, and, for whole inferences, the host's clock around `infer`
with its copies. Candidates are timed in interleaved rounds. What a runtime refuses is recorded word for word.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fuse import BACKBONES, GROUPS, IMAGE_SIZE, interval, write_graphs
from record import MATERIAL, save

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.config import BackboneSettings
from edgetl.engine.nvidia.cuda import Cuda, primary_context
from edgetl.engine.nvidia.deserialize import deserialise
from edgetl.engine.nvidia.engine_io import read_ports
from edgetl.engine.nvidia.generations import TENSORRT, TENSORRT_RTX
from edgetl.engine.nvidia.memory import Buffer
from edgetl.engine.runtime import BuildOptions, RunOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import load_model, save_model
from edgetl.measure.latency import ratio
from edgetl.measure.timing import TimingPlan, measure

PRODUCTS = {"tensorrt": TENSORRT, "tensorrt-rtx": TENSORRT_RTX}
ROUNDS, REPEATS = 30, 50
PROVIDER = "onnxruntime-cuda"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, for each network")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for runtime in (*PRODUCTS, PROVIDER):
        for title, (name, weights) in BACKBONES.items():
            study = BackboneSettings(name=name, weights=str(options.material / weights) if weights else None)
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    found = compare(runtime, study, Path(scratch), options.seconds)
                except EdgetlError as error:
                    found = {"refused": str(error)}
            figures.setdefault(runtime, {})[title] = found
    save(options.output, "device", {"image_size": IMAGE_SIZE, "heads": GROUPS, "runtimes": figures}, threads=0)


def compare(runtime: str, study: BackboneSettings, scratch: Path, seconds: float) -> dict[str, Any]:
    if runtime in PRODUCTS:
        primary_context()
    get_runtime(runtime).here(BuildOptions())
    get_runtime(runtime).target(BuildOptions())  # what is refused is refused before anything is exported
    specialists, _ = write_graphs(study, scratch)
    fused = scratch / "fused.onnx"
    save_model(fuse({path.stem: load_model(path) for path in specialists}).model, fused)
    paths = [build(runtime, graph) for graph in (*specialists, fused)]
    image = np.random.default_rng(0).random((1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    found: dict[str, Any] = {"manifest": read_manifest(paths[0]).model_dump(mode="json", exclude={"layers"})}
    if runtime in PRODUCTS:
        found["runner_over_bare_loop"] = against_bare_loop(runtime, paths[0], image)
    return {**found, **side_by_side(runtime, paths, image, seconds)}


def build(runtime: str, graph: Path) -> Path:
    engine = graph.with_suffix(".built" + get_runtime(runtime).SUFFIX)
    build_engine(get_runtime(runtime), graph, engine, BuildOptions(max_batch=1))
    return engine


def against_bare_loop(runtime: str, path: Path, image: Any) -> dict[str, float]:
    """The runner's time between events over that of a loop that does nothing else, round by round."""
    cuda = primary_context()
    with load_engine(path, run=RunOptions(timed=True, transfers=False)) as engine:  # type: ignore[attr-defined]
        bare = bare_loop(cuda, runtime, path)
        ratios = []
        for _ in range(1 + ROUNDS):
            for _ in range(REPEATS):
                engine.infer(image)
            ratios.append(np.median(engine.take_device_times()[:, 1]) / np.median(next(bare)))
        bare.close()
    low, value, high = np.percentile(ratios[1:], [2.5, 50, 97.5])  # the first warms up
    return {"value": float(value), "low": float(low), "high": float(high)}


def bare_loop(cuda: Cuda, runtime: str, path: Path) -> Iterator[list[float]]:
    """Milliseconds of ``REPEATS`` executions of an engine, with nothing around them but two events."""
    driver = cuda.driver
    with cuda.current():
        plan = deserialise(PRODUCTS[runtime], path, BuildOptions(max_batch=1))
        context, stream = plan.engine.create_execution_context(), driver.Stream()
        inputs, outputs = read_ports(plan)
        buffers = [Buffer(cuda, port.dtype, abs(port.elements)) for port in (*inputs, *outputs)]
        for port, buffer in zip((*inputs, *outputs), buffers, strict=True):
            context.set_tensor_address(port.name, buffer.address)
        for port in inputs:
            context.set_input_shape(port.name, port.most)
        begun, done = driver.Event(), driver.Event()
    while True:
        times = []
        with cuda.current():
            for _ in range(REPEATS):
                begun.record(stream)
                context.execute_async_v3(stream.handle)
                done.record(stream)
                done.synchronize()
                times.append(float(done.time_since(begun)))
        yield times


def side_by_side(runtime: str, paths: list[Path], image: Any, seconds: float) -> dict[str, Any]:
    """Two and three engines one after another, on streams, and fused; one engine with a CUDA graph and without."""
    engines: list[Any] = [load_engine(path) for path in paths]
    *apart, together = engines
    calls: dict[str, Callable[[], object]] = {
        "one": lambda: apart[0].infer(image),
        "two one after another": lambda: [engine.infer(image) for engine in apart[:2]],
        "three one after another": lambda: [engine.infer(image) for engine in apart],
        "three fused": lambda: together.infer(image),
    }
    if runtime in PRODUCTS:
        captured: Any = load_engine(paths[0], run=RunOptions(cuda_graph=True))
        calls["two on streams"] = lambda: on_streams(apart[:2], image)
        calls["three on streams"] = lambda: on_streams(apart, image)
        calls["one as a CUDA graph"] = lambda: captured.infer(image)
    samples = measure(list(calls), lambda *_: calls, TimingPlan(seconds=seconds)).samples
    pairs = [("three one after another", "three fused"), ("three one after another", "three on streams"),
             ("two one after another", "two on streams"), ("one", "one as a CUDA graph")]  # fmt: skip
    return {
        "milliseconds": {name: float(np.median(sample.per_round)) for name, sample in samples.items()},
        "ratios": {f"{a} over {b}": interval(ratio(samples[a], samples[b])) for a, b in pairs if b in samples},
    }


def on_streams(engines: list[Any], image: Any) -> list[Any]:
    pending = [engine.start(image) for engine in engines]
    return [one.result() for one in pending]


if __name__ == "__main__":
    main()
