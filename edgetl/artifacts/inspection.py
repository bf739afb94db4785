"""What a file or directory is and holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgetl.artifacts.engine import EngineLayer, EngineTensor
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
