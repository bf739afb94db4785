"""Engines and latencies of plain ONNX files, without a study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import read_bytes, sha256_bytes
from edgetl.artifacts.results import EngineFile, Measured, Profile
from edgetl.engine.cpu import processor
from edgetl.engine.nvidia import trtexec
from edgetl.engine.runtime import BuildOptions, RunOptions, Runtime, Workshop, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.graph.quantise import spelling
from edgetl.measure.environment import describe
from edgetl.measure.latency import Plan, Samples, compare, measure, summarise
from edgetl.stages.prepare import Preparation, input_preprocessing, prepare_file
from edgetl.stages.stage import Watcher

ENGINE = ".engine"
"""Ends the name of TensorRT's engines; those of ONNX Runtime are ONNX files."""


@dataclass(frozen=True)
class EngineOrder:
    """An engine to be built from a plain graph. ``timing_caches`` is as in `Workshop`."""

    graph: Path
    output: Path | None
    runtime: str
    options: BuildOptions
    preparation: Preparation
    calibration_cache: Path | None = None
    timing_caches: Path | None = None


def build_file(order: EngineOrder, watcher: Watcher) -> Path:
    """Build the engine, from the graph as it is for fp32, else from the graph prepared in the precision.

    Raises:
        EdgetlError: the runtime cannot do the precision, or does not take the graph.
    """
    runtime, precision = get_runtime(order.runtime), order.preparation.precision
    refused = runtime.unsupported(precision)
    if refused is not None:
        raise EdgetlError(f"{order.runtime} cannot run {precision}: {refused}")
    load_model(order.graph)  # a damaged file gets its clear line here, whatever the runtime makes of it
    engine = _engine_path(order, runtime)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = order.graph
        if precision != "fp32":
            prepared = Path(scratch) / order.graph.name
            note = engine.with_name(f"{engine.name}.prepared.json")
            prepare_file(order.graph, prepared, order.preparation, watcher, note)
        built = _build(order, runtime, prepared, engine, watcher)
    watcher.say(f"build-engine: {_summary(engine) if built else 'up to date, the engine that is there is used again'}")
    return engine


def _engine_path(order: EngineOrder, runtime: Runtime) -> Path:
    name = f"{order.graph.stem}.{order.preparation.precision}.{order.runtime}{runtime.SUFFIX}"
    return order.output or order.graph.with_name(name)


def _build(order: EngineOrder, runtime: Runtime, prepared: Path, engine: Path, watcher: Watcher) -> bool:
    options, done = order.options, 0.0
    if order.calibration_cache is not None:
        options = replace(options, calibration_sha256=sha256_bytes(read_bytes(order.calibration_cache)))
    with watcher.progress(f"building {engine.name}", 1.0) as advance:

        def watch(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        workshop = Workshop(order.timing_caches, order.calibration_cache, watch)
        return build_engine(runtime, prepared, engine, options, workshop)


def _summary(engine: Path) -> str:
    """What a build took and gave."""
    manifest = read_manifest(engine)
    grown = "" if manifest.build_peak_mb is None else f", {manifest.build_peak_mb:.0f} MB of memory"
    return f"built in {manifest.build_seconds:.1f} s{grown}: {manifest.bytes / 1e6:.1f} MB"


def trtexec_lines(order: EngineOrder, version: str) -> tuple[str, ...]:
    """The trtexec commands that build and time the engine of a prepared graph with a TensorRT of some version.

    Raises:
        EdgetlError: the graph cannot be read, or trtexec of that version cannot do what is asked.
    """
    load_model(order.graph)
    engine = order.output or order.graph.with_suffix(".engine")
    return trtexec.commands(order.graph, engine, order.options, version, order.calibration_cache)


def profile_files(
    graphs: Sequence[Path], threads: int, seconds: float, trust: bool = False, cuda_graph: bool = False
) -> Profile:
    """Measure files side by side, one image at a time: ONNX files on ONNX Runtime, engines on what built them.

    The files' paths are the names.

    Args:
        trust: load engines though they are not the files that their manifests speak of.
        cuda_graph: run TensorRT engines as CUDA graphs.

    Raises:
        EdgetlError: a file cannot be read or loaded, is named twice, or is INT8 in TensorRT's spelling.
    """
    run = RunOptions(threads=threads, cuda_graph=cuda_graph)
    names = [str(graph) for graph in graphs]
    if len(set(names)) < len(names):
        raise EdgetlError("a file is named twice; give each file once")
    with tempfile.TemporaryDirectory() as scratch:
        engines = {name: Path(scratch) / f"{number}.onnx" for number, name in enumerate(names)}
        calls = {
            name: _engine_call(Path(name), run, trust) if _is_engine(name) else _inference(Path(name), engine, threads)
            for name, engine in engines.items()
        }
        samples = measure(calls, Plan(seconds=seconds))
        rows = tuple(_row(name, Path(name) if _is_engine(name) else engines[name], samples[name]) for name in names)
    return Profile(environment=describe(processor(), threads), deployments=rows, comparisons=compare(samples))


def _is_engine(name: str) -> bool:
    return name.endswith(ENGINE)


def _engine_call(engine: Path, run: RunOptions, trust: bool) -> Callable[[], object]:
    """One image through an engine of TensorRT's."""
    loaded = load_engine(engine, trust=trust, run=run)
    random = np.random.default_rng(0)
    inputs = [random.random(shape, dtype=np.float32) for shape in loaded.shapes]
    return lambda: loaded.infer(*inputs)


def _row(name: str, engine: Path, samples: Samples) -> Measured:
    latency, manifest = summarise(samples), read_manifest(engine, trust=True)
    return Measured(
        name=name,
        precision="as in the file",
        runtime=manifest.runtime,
        engines=(EngineFile(file=name, sha256=manifest.graph_sha256, bytes=Path(name).stat().st_size),),
        latency_ms=latency,
        throughput_ips=1e3 / latency.mean,
    )


def _inference(graph: Path, engine: Path, threads: int) -> Callable[[], object]:
    model = load_model(graph)
    if spelling(model) == "tensorrt":
        raise EdgetlError(
            f"{graph} is INT8 in TensorRT's spelling, whose speed on ONNX Runtime says nothing of INT8's; prepare it "
            "with --target onnxruntime"
        )
    shape = input_preprocessing(model).shape
    build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
    loaded = load_engine(engine, threads)
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    return lambda: loaded.infer(image)
