"""What fusing came to: what was shared, where sharing ends and why, and how that was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GraphSize:
    """A part of a graph, in nodes that run for every image, parameters, FLOPs and relative latency (see `Cost`).

    Nodes that only copy do not count. All but ``layers`` is None where the graph does not tell its costs.
    """

    layers: int
    parameters: int | None = None
    flops: int | None = None
    relative_latency: float | None = None


@dataclass(frozen=True)
class Sharing:
    """What each graph consists of, what of it another one has too, and what all come to as one.

    ``gain``: the estimated cost of the graphs one after another over that of all as one; None where that cannot be
    told, and ``why_unknown`` says why.
    """

    own: Mapping[str, GraphSize]
    shared: Mapping[str, GraphSize]
    fused: GraphSize
    gain: float | None
    why_unknown: str | None


@dataclass(frozen=True)
class Divergence:
    """Where a graph parts from an earlier one, the one that it has most in common with.

    ``shared`` of its ``layers`` are the other's too: nodes that run for every image, so Constant, Identity and what is
    computed from constants do not count. ``layer`` is the first that is not shared, None if there is no such layer,
    and ``reason`` says what sets it apart.
    """

    model: str
    against: str
    shared: int
    layers: int
    layer: str | None
    reason: str


@dataclass(frozen=True)
class ScaleConflict:
    """A tensor that graphs have in common but quantise with different scales.

    ``tensor``: its name in the first of them. ``scales``: the scale in each; where it is per channel, the largest.
    """

    tensor: str
    scales: Mapping[str, float]


@dataclass(frozen=True)
class Verification:
    """What a comparison found.

    ``difference``: the largest absolute one over all outputs. ``wrong``: an output that is further from the original
    than rounding explains, if there is one. ``random``: outputs that are not even equal in two runs of the original.
    """

    difference: float
    wrong: str | None
    random: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """What came of fusing.

    ``bytes``: sizes of the files, ``fused_bytes`` that of the new one. ``recalibration_difference``: how far
    recalibration moved an output away from what the files compute; None where it was not asked for.
    """

    sharing: Sharing
    bytes: Mapping[str, int]
    fused_bytes: int
    divergences: tuple[Divergence, ...]
    conflicts: tuple[ScaleConflict, ...]
    verified: Verification
    random_images: int
    real_images: int
    recalibration_difference: float | None
