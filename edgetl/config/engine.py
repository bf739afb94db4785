"""The section ``engine`` of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from edgetl.yaml_file import Settings


class EngineSettings(Settings):
    """How TensorRT builds and runs the study's engines; what a runtime has not is refused when it builds.

    ``cuda_graph`` and ``share_scratch`` are of running: all engines of a study run one after another, so their scratch
    memory can be the same.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"level": "optimization_level"}

    workspace_mb: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    dla_core: int | None = Field(default=None, ge=0)
    gpu_fallback: bool = False
    sparse: bool = False
    version_compatible: bool = False
    hardware_compatible: Literal["ampere-plus", "same-compute-capability"] | None = None
    cuda_graph: bool = False
    share_scratch: bool = False
