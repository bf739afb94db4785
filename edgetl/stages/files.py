"""Engines of plain ONNX files, without a study."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.artifacts.engine import read_manifest
from edgetl.artifacts.files import read_bytes, sha256_bytes
from edgetl.engine.nvidia import trtexec
from edgetl.engine.runtime import BuildOptions, Runtime, Workshop, build_engine, get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.stages.prepare import Preparation, prepare_file
from edgetl.stages.stage import Watcher


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
