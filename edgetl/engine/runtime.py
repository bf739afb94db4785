"""The Protocol of runtimes, the table of all of them, and building and loading engines through them."""

from __future__ import annotations

import importlib
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import reduce
from pathlib import Path
from typing import Protocol, cast

from edgetl import __version__
from edgetl.arrays import Float32Array
from edgetl.artifacts.engine_manifest import EngineLayer, EngineManifest, check_target, manifest_path, read_manifest
from edgetl.artifacts.files import sha256_file, whole_file, write_json
from edgetl.artifacts.lock import locked
from edgetl.config import QdqFormat
from edgetl.engine.layer_precisions import graph_layers, graph_tensors, read_structure
from edgetl.engine.layer_times import LayerTimes
from edgetl.engine.options import BuildOptions, BuildResources, RunOptions
from edgetl.engine.process_memory import forget_peak, status_mb
from edgetl.errors import EdgetlError

__all__ = [
    "RUNTIMES",
    "BuildInfo",
    "BuildOptions",
    "BuildResources",
    "Engine",
    "RunOptions",
    "Runtime",
    "build_engine",
    "get_runtime",
    "load_engine",
    "time_layers",
]


class Engine(Protocol):
    """A loaded engine."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input for one image."""

    def infer(self, *inputs: Float32Array) -> dict[str, Float32Array]:
        """Run the engine; outputs by name. Most have one input: images, N x 3 x S x S in [0, 1]."""


@dataclass(frozen=True)
class BuildInfo:
    """What a runtime says about a build: the machine, and the engine's layers where it could list them."""

    on: Mapping[str, str]
    layers: tuple[EngineLayer, ...] | None


class Runtime(Protocol):
    """A module of this package, or an object in one.

    All functions raise EdgetlError where the machine lacks what they need, or the runtime cannot do what the options
    ask for.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802
    @property
    def SUFFIX(self) -> str: ...  # noqa: N802
    @property
    def QDQ_FORMAT(self) -> QdqFormat: ...  # noqa: N802

    def target(self, options: BuildOptions) -> dict[str, str]:
        """What an engine that is built here is tied to, by name."""

    def here(self, options: BuildOptions) -> dict[str, str]:
        """What this machine is, to compare with an engine's target."""

    def unsupported(self, precision: str) -> str | None:
        """Why a precision cannot run, or None where it can."""

    def build(self, graph: Path, engine: Path, options: BuildOptions, resources: BuildResources) -> BuildInfo:
        """Write an engine file from a prepared graph."""

    def load(self, engine: Path, options: BuildOptions, run: RunOptions) -> Engine:
        """Load an engine file that was built with ``options``."""

    def layer_times(
        self, engine: Path, options: BuildOptions, run: RunOptions, inputs: Sequence[Float32Array], runs: int
    ) -> LayerTimes:
        """Time the layers of an engine file with the runtime's own profiler."""


RUNTIMES: Mapping[str, str] = {
    "onnxruntime": "edgetl.engine.ort",
    "onnxruntime-cuda": "edgetl.engine.ort_gpu:CUDA",
    "onnxruntime-tensorrt": "edgetl.engine.ort_gpu:TENSORRT",
    "tensorrt": "edgetl.engine.nvidia.tensorrt_runtime:TENSORRT_RUNTIME",
    "tensorrt-rtx": "edgetl.engine.nvidia.tensorrt_runtime:TENSORRT_RTX_RUNTIME",
}


def get_runtime(name: str) -> Runtime:
    """The runtime with a name of `RUNTIMES`.

    Raises:
        EdgetlError: this version has no such runtime.
    """
    if name not in RUNTIMES:
        raise EdgetlError(f"runtime {name} is not in this version; use {' or '.join(RUNTIMES)}")
    module, _, within = RUNTIMES[name].partition(":")
    return cast(Runtime, reduce(getattr, filter(None, [within]), importlib.import_module(module)))


def build_engine(
    runtime: Runtime, graph: Path, engine: Path, options: BuildOptions, resources: BuildResources | None = None
) -> bool:
    """Build an engine and its manifest, unless the engine that lies there is up to date.

    Of two processes that want one engine, one builds it, and the other waits and takes it.

    Returns:
        Whether it was built.
    """
    identity = EngineIdentity(sha256_file(graph), runtime.target(options), options)
    with locked(engine):
        if manifest_path(engine).is_file():
            with suppress(EdgetlError):  # an engine that is damaged or of another version is built again
                there = read_manifest(engine)
                # As dictionaries: options that this version does not know make another engine, no error.
                same = (there.graph_sha256, there.target) == (identity.graph_sha256, identity.target)
                if same and there.options == asdict(options):
                    return False
        _build(runtime, graph, engine, identity, resources or BuildResources())
    return True


@dataclass(frozen=True)
class EngineIdentity:
    """What tells engines apart: two builds with the same identity give the same engine."""

    graph_sha256: str
    target: dict[str, str]
    options: BuildOptions


def _build(runtime: Runtime, graph: Path, engine: Path, identity: EngineIdentity, resources: BuildResources) -> None:
    forget_peak()
    begin, before = time.perf_counter(), status_mb("VmRSS")
    with whole_file(engine) as partial:
        # Before anything else: a build that is killed must leave no manifest that speaks of another build.
        manifest_path(engine).unlink(missing_ok=True)
        built = runtime.build(graph, partial, identity.options, resources)
    # The kernel sums the pages of all cores only now and then: the peak may read a little below the beginning.
    peak, structure = status_mb("VmHWM"), read_structure(graph)
    inputs, outputs = graph_tensors(structure)
    manifest = EngineManifest(
        runtime=runtime.NAME,
        graph=graph.name,
        graph_sha256=identity.graph_sha256,
        engine_sha256=sha256_file(engine),
        bytes=engine.stat().st_size,
        target=identity.target,
        built_on={"edgetl": __version__, "python": platform.python_version(), **built.on},
        options=asdict(identity.options),
        built_at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        build_seconds=round(time.perf_counter() - begin, 3),
        build_peak_mb=None if before is None or peak is None else round(max(peak - before, 0.0), 1),
        inputs=inputs,
        outputs=outputs,
        layers_of="graph" if built.layers is None else "engine",
        layers=graph_layers(structure) if built.layers is None else built.layers,
    )
    write_json(manifest_path(engine), manifest)


def time_layers(
    engine: Path, inputs: Sequence[Float32Array], runs: int = 30, trust: bool = False, run: RunOptions | None = None
) -> LayerTimes:
    """Measure the milliseconds of each layer of an engine.

    Raises:
        EdgetlError: as `load_engine` does, or the runtime cannot time layers.
    """
    runtime, options = _checked(engine, trust)
    return runtime.layer_times(engine, options, run or RunOptions(), inputs, runs)


def load_engine(engine: Path, threads: int = 0, trust: bool = False, run: RunOptions | None = None) -> Engine:
    """Load an engine after checking that it is whole and was built for this machine.

    Args:
        threads: those of ONNX Runtime, 0 for one per core; ``run`` overrides it.
        trust: load a file that its manifest does not describe. An engine can run code.

    Raises:
        EdgetlError: the engine is missing, damaged, or was built for something else.
    """
    runtime, options = _checked(engine, trust)
    return runtime.load(engine, options, run or RunOptions(threads=threads))


def _checked(engine: Path, trust: bool) -> tuple[Runtime, BuildOptions]:
    """The runtime and build options of an engine, after checking that it is whole and was built for this machine."""
    manifest = read_manifest(engine, trust)
    runtime = get_runtime(manifest.runtime)
    try:
        options = BuildOptions(**manifest.options)
    except TypeError:
        raise EdgetlError(
            f"{manifest_path(engine)} holds options that this version of edgetl does not know; build the engine again"
        ) from None
    check_target(engine, manifest.target, runtime.here(options))
    return runtime, options
