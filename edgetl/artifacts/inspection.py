"""What a file is and holds, and what a machine can do: what `edgetl inspect` and `edgetl doctor` print."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgetl.artifacts.engine_manifest import EngineLayer, EngineTensor
from edgetl.artifacts.files import Artifact


class Inspection(Artifact):
    """A graph, an engine, a bundle or a run directory.

    ``precisions`` counts the layers of each; ``figures`` are sizes and costs; ``notes`` what it says of itself;
    ``lineage`` what it was made from, by digest.
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
    """Whether something can be done: what is ``missing`` for it, and the command that ``mends`` that."""

    what: str
    missing: str | None
    fix: str | None


class DoctorReport(Artifact):
    """``facts`` in the order in which they are read: a group, then a name and a value each; null where unknown."""

    facts: dict[str, dict[str, Any]]
    capabilities: tuple[Capability, ...]
