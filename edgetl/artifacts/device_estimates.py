"""What a device that is not at hand is estimated to need. Nothing here was measured."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class Estimated(Artifact):
    """One image through all engines of a deployment, one after another, on a device in one of its power modes.

    ``low`` and ``high`` (milliseconds) bound the latency as `docs/measuring.md` tells; ``middle`` is the calibrated
    model's own figure. ``memory_mb`` is what weights and activations take; the system and the runtime need more.
    ``unverified`` names the figures of the device whose source could not be read. ``left_out`` are operators whose work
    depends on what is to be seen; they and what follows them are not counted.
    """

    name: str
    precision: str
    device: str
    mode: str
    low: float
    middle: float
    high: float
    memory_mb: float
    device_memory_mb: float
    unverified: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether weights and activations are smaller than the whole memory of the device."""
        return self.memory_mb <= self.device_memory_mb
