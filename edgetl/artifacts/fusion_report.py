"""The report of fusing graphs: what they share, where sharing ends and why, and how the result was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GraphSize:
    """The size of a part of a graph: nodes that run for every image, parameters, FLOPs, relative latency (see `Cost`).

    Nodes that only copy do not count. All but ``layers`` is None where the graph's costs are unknown.
    """

    layers: int
    parameters: int | None = None
    flops: int | None = None
    relative_latency: float | None = None


@dataclass(frozen=True)
class Sharing:
    """The size of each graph, of its part that another graph has too, and of the fused graph.

    ``gain``: the estimated cost of all graphs one after another, divided by that of the fused one; None where it is
    unknown, and ``why_unknown`` says why.
    """

    own: Mapping[str, GraphSize]
    shared: Mapping[str, GraphSize]
    fused: GraphSize
    gain: float | None
    why_unknown: str | None


@dataclass(frozen=True)
class Divergence:
    """Where a graph diverges from the earlier graph that it shares most with.

    The other graph has ``shared`` of its ``layers`` too: nodes that run for every image, so Constant, Identity and what
    is computed from constants do not count. ``layer`` is the first that is not shared, None if all are, and ``reason``
    says how it differs.
    """

    model: str
    against: str
    shared: int
    layers: int
    layer: str | None
    reason: str


@dataclass(frozen=True)
class ScaleConflict:
    """A tensor that graphs share but quantize with different scales.

    ``tensor``: its name in the first graph. ``scales``: the scale in each graph, the largest where it is per channel.
    """

    tensor: str
    scales: Mapping[str, float]


@dataclass(frozen=True)
class Verification:
    """The result of comparing the fused graph with the originals.

    ``difference``: the largest absolute one over all outputs. ``wrong``: an output that differs by more than rounding,
    if any. ``random``: outputs that differ between two runs of the original.
    """

    difference: float
    wrong: str | None
    random: tuple[str, ...]


@dataclass(frozen=True)
class Fusion:
    """The report of fusing.

    ``bytes``: sizes of the files, ``fused_bytes`` that of the new one. ``recalibration_difference``: by how much
    recalibration changed an output at most; None without recalibration.
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
