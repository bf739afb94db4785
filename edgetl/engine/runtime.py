"""What every runtime can be asked, and the one table of those there are."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.engine import EngineManifest, check_target, manifest_path, read_manifest
from edgetl.artifacts.files import sha256_file, whole_file, write_json
from edgetl.errors import EdgetlError

Array = npt.NDArray[np.float32]
Spelling = Literal["tensorrt", "onnxruntime"]


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    ``compute_capability`` (such as SM86) is for runtimes that build ahead of time for another device; ``max_batch``
    bounds the dynamic batch where a runtime wants to know it.
    """

    compute_capability: str | None = None
    max_batch: int = 16


class Engine(Protocol):
    """A loaded engine."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each input for one image."""

    def infer(self, *inputs: Array) -> dict[str, Array]:
        """Outputs by name. The one input of most engines are images, N x 3 x S x S in [0, 1]."""


class Runtime(Protocol):
    """A module of this room. All of its functions raise EdgetlError where the machine lacks what they need."""

    NAME: str
    SUFFIX: str
    SPELLING: Spelling

    def target(self, options: BuildOptions) -> dict[str, str]:
        """What an engine built here is tied to."""

    def unsupported(self, precision: str) -> str | None:
        """Why a precision cannot run, or None where it can."""

    def build(self, graph: Path, engine: Path, options: BuildOptions) -> None:
        """Write an engine file from a prepared graph."""

    def load(self, engine: Path, threads: int) -> Engine:
        """Load an engine file; ``threads`` 0 means one per core."""


RUNTIMES: Mapping[str, str] = {
    "onnxruntime": "edgetl.engine.ort",
    "tensorrt-rtx": "edgetl.engine.tensorrt_rtx",
}


def get_runtime(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        EdgetlError: this version has no such runtime.
    """
    if name not in RUNTIMES:
        raise EdgetlError(f"runtime {name} is not in this version; use {' or '.join(RUNTIMES)}")
    return cast(Runtime, importlib.import_module(RUNTIMES[name]))


def build_engine(runtime: Runtime, graph: Path, engine: Path, options: BuildOptions) -> bool:
    """Build an engine and its manifest, unless the one that lies there is the very one.

    Returns:
        True where it was built, False where the engine there was up to date.
    """
    graph_sha256, target = sha256_file(graph), runtime.target(options)
    if _is_current(engine, graph_sha256, target, options):
        return False
    begin = time.perf_counter()
    with whole_file(engine) as partial:
        manifest_path(engine).unlink(missing_ok=True)
        runtime.build(graph, partial, options)
    manifest = EngineManifest(
        runtime=runtime.NAME,
        graph=graph.name,
        graph_sha256=graph_sha256,
        engine_sha256=sha256_file(engine),
        bytes=engine.stat().st_size,
        target=target,
        options=asdict(options),
        build_seconds=round(time.perf_counter() - begin, 3),
    )
    write_json(manifest_path(engine), manifest)
    return True


def _is_current(engine: Path, graph_sha256: str, target: dict[str, str], options: BuildOptions) -> bool:
    if not manifest_path(engine).is_file():
        return False
    try:
        manifest = read_manifest(engine)
    except EdgetlError:  # damaged or of another version: it is built anew
        return False
    return (manifest.graph_sha256, manifest.target, manifest.options) == (graph_sha256, target, asdict(options))


def load_engine(engine: Path, threads: int = 0) -> Engine:
    """Load an engine after checking that it is whole and was built for this machine.

    Raises:
        EdgetlError: the engine is missing, damaged, or was built for something else.
    """
    manifest = read_manifest(engine)
    runtime = get_runtime(manifest.runtime)
    try:
        options = BuildOptions(**manifest.options)
    except TypeError:
        raise EdgetlError(
            f"{manifest_path(engine)} holds options that this version of edgetl does not know; build the engine again"
        ) from None
    check_target(engine, manifest.target, runtime.target(options))
    return runtime.load(engine, threads)
