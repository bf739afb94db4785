"""How an engine is built, what its build may use, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path

from edgetl.errors import EdgetlError


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built. All fields are part of the engine's identity.

    ``compute_capability`` (such as SM86) is for runtimes that build ahead of time for another device. A dynamic batch
    runs from ``min_batch`` to ``max_batch``, fastest at ``opt_batch``. ``workspace_mb`` limits the scratch memory of a
    layer. ``optimization_level``, 0 to 5, is how long the builder searches. ``calibration_sha256`` identifies the
    calibration cache that gives INT8 on a DLA core its scales. ``hardware_compatible`` is ``ampere-plus`` or
    ``same-compute-capability``.
    """

    compute_capability: str | None = None
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 16
    workspace_mb: int | None = None
    optimization_level: int | None = None
    dla_core: int | None = None
    gpu_fallback: bool = False
    calibration_sha256: str | None = None
    sparse: bool = False
    version_compatible: bool = False
    hardware_compatible: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.min_batch <= self.opt_batch <= self.max_batch:
            found = f"{self.min_batch}, {self.opt_batch}, {self.max_batch}"
            raise EdgetlError(f"batches must be 1 <= min <= opt <= max, found {found}; change --batches")


BATCHES = frozenset({"min_batch", "opt_batch", "max_batch"})


def refuse_options(runtime: str, options: BuildOptions, known: Collection[str], instead: str) -> None:
    """Raise EdgetlError where an option is set that a runtime does not know, rather than ignore it."""
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in known:
            what = field.name.removesuffix("_sha256").replace("_", " ")
            shown = "" if isinstance(value, bool) or field.name.endswith("_sha256") else f" ({value} was given)"
            raise EdgetlError(f"{runtime} takes no {what}{shown}; {instead}")


@dataclass(frozen=True)
class BuildResources:
    """What a build may use without making another engine.

    ``timing_caches`` is the folder where builders keep measured times of kernels; with None they keep nothing.
    ``on_progress`` is called with the fraction of the work that is done.
    """

    timing_caches: Path | None = None
    calibration_cache: Path | None = None
    on_progress: Callable[[float], object] = bool


@dataclass(frozen=True)
class RunOptions:
    """How an engine is run. No field changes what it computes.

    ``threads`` are those of ONNX Runtime on the CPU; 0 means one per core. With ``timed``, an engine on a GPU keeps the
    times of its parts. With ``spin_wait`` the host polls the device and does not sleep. Without ``transfers`` the
    inputs of the first inference stay on the device, and no outputs come back. Engines with the same name for
    ``scratch`` share scratch memory and never run at once. ``runtime_caches`` is the folder where TensorRT-RTX keeps
    what it compiled on the device; with None it keeps nothing.
    """

    threads: int = 0
    cuda_graph: bool = False
    timed: bool = False
    spin_wait: bool = False
    transfers: bool = True
    scratch: str | None = None
    runtime_caches: Path | None = None
