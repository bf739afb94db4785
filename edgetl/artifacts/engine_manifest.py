"""The note beside every engine: what it was built from, for what, by what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from edgetl.artifacts.files import Artifact, read_json, sha256_file
from edgetl.errors import EdgetlError

OR_NEWER = " or newer"


class EngineLayer(Artifact):
    """A layer, and the type that it computes in: fp32, fp16, int8 and so on."""

    name: str
    operator: str
    precision: str


class EngineTensor(Artifact):
    """An input or output. A size that is open has its name in the graph."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class EngineManifest(Artifact):
    """Identity of an engine.

    ``target`` holds what the engine is tied to: it runs nowhere else. A value may end in ``or newer``. ``built_on``
    tells the machine that built it, as far as it is known, ``built_at`` when (ISO 8601, UTC, to the microsecond, so
    that no two builds have one manifest: what was measured on one engine is not taken for another's). ``layers`` are
    the engine's own where the runtime could be asked (``layers_of``), else those of the graph that it was built from.
    ``build_peak_mb`` is how far the process grew while it built.
    """

    schema_version: Literal[4] = 4
    runtime: str
    graph: str
    graph_sha256: str
    engine_sha256: str
    bytes: int
    target: dict[str, str]
    built_on: dict[str, str]
    options: dict[str, Any]
    built_at: str
    build_seconds: float
    build_peak_mb: float | None
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    layers_of: Literal["engine", "graph"]
    layers: tuple[EngineLayer, ...]


def manifest_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def read_manifest(engine: Path, trust: bool = False) -> EngineManifest:
    """The manifest of an engine file.

    Args:
        trust: take the engine though it is not the file that the manifest describes.

    Raises:
        EdgetlError: engine or manifest is missing, or the engine is not the file that the manifest describes.
    """
    if not engine.is_file():
        raise EdgetlError(f"{engine} does not exist; build it with edgetl build-engine")
    manifest = read_json(manifest_path(engine), EngineManifest)
    if not trust and (found := engine.stat().st_size) != manifest.bytes:
        raise EdgetlError(
            f"{engine} is damaged: it has {found} bytes, its manifest says {manifest.bytes}; build it again"
        )
    if not trust and sha256_file(engine) != manifest.engine_sha256:
        raise EdgetlError(
            f"{engine} is damaged or was replaced: its sha256 is not the one in its manifest; build it again, or take "
            "it with --trust if you know where it comes from (an engine can run code)"
        )
    return manifest


def check_target(engine: Path, built_for: dict[str, str], here: dict[str, str]) -> None:
    """Refuse an engine that was built for something else than what is here, naming both sides."""
    differing = [key for key in built_for if not _fits(built_for[key], here.get(key))]
    if differing:
        theirs = ", ".join(f"{key} {built_for[key]}" for key in differing)
        ours = ", ".join(f"{key} {here.get(key, 'unknown')}" for key in differing)
        raise EdgetlError(
            f"{engine.name} was built for {theirs}, this machine has {ours}; run edgetl build-engine here"
        )


def _fits(wanted: str, found: str | None) -> bool:
    if found is not None and wanted.endswith(OR_NEWER):
        return _numbers(found) >= _numbers(wanted)
    return found == wanted


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", version))
