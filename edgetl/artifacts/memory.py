"""What a deployment's engines hold in memory."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class Memory(Artifact):
    """Growth from before the engines are loaded, in a process of its own that runs each once, in MiB.

    ``process_mb`` is resident memory at its peak. ``device_loaded_mb`` is what loading takes on the GPU, ``device_mb``
    what is held there after running, ``device_scratch_mb`` what the runtime itself says its execution contexts need.
    ``system_mb`` is by how much less the whole machine has available, other programs included: where the GPU shares the
    processor's memory (``shared``), what it takes is in that figure and not in ``process_mb``. ``reason`` says why
    figures of a GPU are missing.
    """

    process_mb: float | None = None
    system_mb: float | None = None
    device_loaded_mb: float | None = None
    device_mb: float | None = None
    device_scratch_mb: float | None = None
    shared: bool | None = None
    reason: str | None = None
