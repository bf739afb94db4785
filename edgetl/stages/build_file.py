"""Engines of plain ONNX files, without a study."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.artifacts.engine_manifest import read_manifest
from edgetl.artifacts.files import read_bytes, sha256_bytes
from edgetl.engine.nvidia import trtexec
from edgetl.engine.runtime import BuildOptions, BuildResources, build_engine, get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.model import load_model
from edgetl.stages.prepare_file import PrepareRequest, prepare_file
from edgetl.stages.stage import ProgressReporter, advance_to


@dataclass(frozen=True)
class EngineRequest:
    """An engine to be built from a plain graph. ``timing_caches`` is as in `BuildResources`."""

    graph: Path
    output: Path | None
    runtime: str
    options: BuildOptions
    preparation: PrepareRequest
    calibration_cache: Path | None = None
    timing_caches: Path | None = None


def build_file(request: EngineRequest, reporter: ProgressReporter) -> Path:
    """Build the engine, from the graph as it is for fp32, else from the graph prepared in the precision; return its
    path.

    Raises:
        EdgetlError: the runtime cannot do the precision, or does not take the graph.
    """
    runtime, precision = get_runtime(request.runtime), request.preparation.precision
    refused = runtime.unsupported(precision)
    if refused is not None:
        raise EdgetlError(f"{request.runtime} cannot run {precision}: {refused}")
    load_model(request.graph)  # a damaged file gets its clear line here, whatever the runtime makes of it
    name = f"{request.graph.stem}.{precision}.{request.runtime}{runtime.SUFFIX}"
    engine, options = request.output or request.graph.with_name(name), request.options
    if request.calibration_cache is not None:
        options = replace(options, calibration_sha256=sha256_bytes(read_bytes(request.calibration_cache)))
    with tempfile.TemporaryDirectory() as scratch:
        prepared = request.graph
        if precision != "fp32":
            prepared = Path(scratch) / request.graph.name
            record = engine.with_name(f"{engine.name}.prepared.json")
            prepare_file(request.graph, prepared, request.preparation, reporter, record)
        with reporter.progress(f"building {engine.name}", 1.0) as advance:
            resources = BuildResources(request.timing_caches, request.calibration_cache, advance_to(advance))
            built = build_engine(runtime, prepared, engine, options, resources)
    reporter.message(
        f"build-engine: {_built(engine) if built else 'up to date, the engine that is there is used again'}"
    )
    return engine


def _built(engine: Path) -> str:
    manifest = read_manifest(engine)
    memory = "" if manifest.build_peak_mb is None else f", {manifest.build_peak_mb:.0f} MB of memory"
    return f"built in {manifest.build_seconds:.1f} s{memory}: {manifest.bytes / 1e6:.1f} MB"


def trtexec_lines(request: EngineRequest, version: str) -> tuple[str, ...]:
    """The trtexec commands that build and time the engine of a prepared graph with a TensorRT of some version.

    Raises:
        EdgetlError: the graph cannot be read, or trtexec of that version cannot do what is asked.
    """
    load_model(request.graph)
    engine = request.output or request.graph.with_suffix(".engine")
    return trtexec.commands(request.graph, engine, request.options, version, request.calibration_cache)
