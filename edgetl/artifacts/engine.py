"""The note beside every engine: what it was built from, for what, by what."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from edgetl.artifacts.files import Artifact, read_json, sha256_file
from edgetl.errors import EdgetlError


class EngineManifest(Artifact):
    """Identity of an engine. ``target`` holds what the engine is tied to: it runs nowhere else."""

    schema_version: Literal[1] = 1
    runtime: str
    graph: str
    graph_sha256: str
    engine_sha256: str
    bytes: int
    target: dict[str, str]
    options: dict[str, Any]
    build_seconds: float


def manifest_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def read_manifest(engine: Path) -> EngineManifest:
    """The manifest of an engine file.

    Raises:
        EdgetlError: engine or manifest is missing, or the engine is not the file that the manifest describes.
    """
    if not engine.is_file():
        raise EdgetlError(f"{engine} does not exist; build it with edgetl build-engine")
    manifest = read_json(manifest_path(engine), EngineManifest)
    if sha256_file(engine) != manifest.engine_sha256:
        raise EdgetlError(f"{engine} is damaged: its sha256 is not the one in its manifest; build it again")
    return manifest


def check_target(engine: Path, built_for: dict[str, str], here: dict[str, str]) -> None:
    """Refuse an engine that was built for something else than what is here, naming both sides."""
    differing = [key for key in built_for if built_for[key] != here.get(key)]
    if differing:
        theirs = ", ".join(f"{key} {built_for[key]}" for key in differing)
        ours = ", ".join(f"{key} {here.get(key, 'unknown')}" for key in differing)
        raise EdgetlError(
            f"{engine.name} was built for {theirs}, this machine has {ours}; run edgetl build-engine here"
        )
