"""Engines and latencies of plain ONNX files, without a study."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.artifacts.results import Comparison, Latency
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.measure.latency import Plan, compare, measure, summarise
from edgetl.stages.prepare import Preparation, input_preprocessing, prepare_file
from edgetl.stages.stage import Watcher


@dataclass(frozen=True)
class EngineOrder:
    """An engine to be built from a plain graph."""

    graph: Path
    output: Path | None
    runtime: str
    options: BuildOptions
    preparation: Preparation


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
    engine = order.output or order.graph.with_name(f"{order.graph.stem}.{precision}.{order.runtime}{runtime.SUFFIX}")
    with tempfile.TemporaryDirectory() as scratch:
        prepared = order.graph
        if precision != "fp32":
            prepared = Path(scratch) / order.graph.name
            prepare_file(order.graph, prepared, order.preparation, watcher)
        built = build_engine(runtime, prepared, engine, order.options)
    watcher.say(f"build-engine: {'built' if built else 'up to date'}")
    return engine


@dataclass(frozen=True)
class FileProfile:
    """Latency of plain ONNX files by path, and the ratio of every pair."""

    latency_ms: Mapping[str, Latency]
    comparisons: tuple[Comparison, ...]


def profile_files(graphs: Sequence[Path], threads: int, seconds: float) -> FileProfile:
    """Measure ONNX files side by side on ONNX Runtime, one image at a time.

    Raises:
        EdgetlError: a file cannot be read or loaded, or is named twice.
    """
    names = [str(graph) for graph in graphs]
    if len(set(names)) < len(names):
        raise EdgetlError("a file is named twice; give each file once")
    with tempfile.TemporaryDirectory() as scratch:
        calls = {name: _inference(Path(name), Path(scratch) / f"{n}.onnx", threads) for n, name in enumerate(names)}
        samples = measure(calls, Plan(seconds=seconds))
    return FileProfile({name: summarise(one) for name, one in samples.items()}, compare(samples))


def _inference(graph: Path, engine: Path, threads: int) -> Callable[[], object]:
    size = input_preprocessing(load_model(graph)).image_size
    build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
    loaded = load_engine(engine, threads)
    image = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    return lambda: loaded.infer(image)
