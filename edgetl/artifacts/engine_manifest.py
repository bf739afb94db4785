"""The manifest of an engine: from which graph it was built, for which machine, with which options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from edgetl.artifacts.files import Artifact, read_json, sha256_file
from edgetl.errors import EdgetlError

# A target's value may end in this: later versions and devices run the engine too.
OR_NEWER = " or newer"


class EngineLayer(Artifact):
    """A layer and its precision: fp32, fp16, int8 and so on."""

    name: str
    operator: str
    precision: str


class EngineTensor(Artifact):
    """An input or output. A dynamic dimension has the name that the graph gives it."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class EngineManifest(Artifact):
    """The record of an engine.

    ``target``: what the engine is tied to; it runs nowhere else. ``built_on``: the machine that built it, as far as it
    is known. ``built_at``: ISO 8601, UTC. ``layers`` are the engine's own where the runtime could list them
    (``layers_of``), else those of its graph. ``build_peak_mb``: how far the building process grew.
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
    built_at: str  # to the microsecond: no two builds have one manifest, so none takes figures measured on the other
    build_seconds: float
    build_peak_mb: float | None
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    layers_of: Literal["engine", "graph"]
    layers: tuple[EngineLayer, ...]


def manifest_path(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def read_manifest(engine: Path, trust: bool = False) -> EngineManifest:
    """Read the manifest of an engine file.

    Args:
        trust: accept an engine that is not the file that the manifest describes.

    Raises:
        EdgetlError: engine or manifest is missing, or the engine is not the file that the manifest describes.
    """
    if not engine.is_file():
        raise EdgetlError(f"{engine} does not exist; build it with edgetl build-engine")
    manifest = read_json(manifest_path(engine), EngineManifest)
    # The size first: a file that was cut short is reported before hundreds of MB are hashed.
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
    """Raise EdgetlError, naming both sides, where an engine was built for another target than what is here."""
    differing = [key for key in built_for if not _fits(built_for[key], here.get(key))]
    if differing:
        theirs = ", ".join(f"{key} {built_for[key]}" for key in differing)
        ours = ", ".join(f"{key} {here.get(key, 'unknown')}" for key in differing)
        raise EdgetlError(
            f"{engine.name} was built for {theirs}, this machine has {ours}; run edgetl build-engine here"
        )


def _fits(expected: str, found: str | None) -> bool:
    if found is not None and expected.endswith(OR_NEWER):
        numbers = ([int(digits) for digits in re.findall(r"\d+", version)] for version in (found, expected))
        return next(numbers) >= next(numbers)
    return found == expected
