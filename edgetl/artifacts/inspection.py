"""What `edgetl inspect` prints of a file, and `edgetl doctor` of a machine."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgetl.artifacts.engine_manifest import EngineLayer, EngineTensor
from edgetl.artifacts.files import Artifact


class Inspection(Artifact):
    """The contents of a graph, an engine, a bundle or a run directory.

    ``precisions`` counts the layers of each; ``figures`` are sizes and costs; ``notes`` its metadata; ``lineage`` what
    it was made from, by digest.
    """

    kind: Literal["graph", "engine", "bundle", "run"]
    path: str
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    layers: tuple[EngineLayer, ...] = ()
    precisions: dict[str, int] = Field(default_factory=dict)
    figures: dict[str, Any]
    notes: dict[str, Any]
    lineage: dict[str, Any]


class Capability(Artifact):
    """Something that a machine can do, or what is ``missing`` for it and the command to ``fix`` that."""

    what: str
    missing: str | None
    fix: str | None


class DoctorReport(Artifact):
    """The facts of a machine: group, name, and value, null where unknown; and what it can do."""

    facts: dict[str, dict[str, Any]]
    capabilities: tuple[Capability, ...]
