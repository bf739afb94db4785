"""What an inference costs in energy, and how that was found out."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class RailPower(Artifact):
    """A supply rail, or a part that counts its own energy: watts without and with the inferences running."""

    name: str
    idle_w: float
    active_w: float


class Energy(Artifact):
    """Millijoules of one inference over what the idle machine takes, with the 95 % interval over rounds.

    ``total_of`` are the rails that add up to the whole; the others are parts of them. Where the machine cannot tell,
    ``reason`` says why and the figures are null.
    """

    mj: float | None = None
    low: float | None = None
    high: float | None = None
    source: str | None = None
    total_of: tuple[str, ...] = ()
    idle_w: float | None = None
    active_w: float | None = None
    rails: tuple[RailPower, ...] = ()
    inferences: int = 0
    rounds: int = 0
    reason: str | None = None
