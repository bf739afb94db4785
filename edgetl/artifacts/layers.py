"""Where the time of an inference goes, layer by layer."""

from __future__ import annotations

from edgetl.artifacts.files import Artifact


class LayerTime(Artifact):
    """A layer of an engine. ``node`` is the ONNX node that it came from, null where the runtime put it in by itself.

    ``part`` is ``trunk`` for what every output needs, else the outputs that need it.
    """

    layer: str
    node: str | None
    operator: str
    part: str | None
    ms: float
    share: float


class PartTime(Artifact):
    """Some layers together: a block by the prefix of its nodes' names, the trunk, a head."""

    name: str
    layers: int
    ms: float
    share: float


class Layers(Artifact):
    """The layers of an engine, in their order, each with the median over ``runs``; shares are those of ``sum_ms``.

    ``profiled_ms`` is the whole inference while the profiler looked on, ``latency_ms`` the one without it: what is
    between them is the profiler's own cost, what is between ``sum_ms`` and ``profiled_ms`` is spent between layers.
    """

    engine: str
    source: str
    runs: int
    sum_ms: float
    profiled_ms: float
    latency_ms: float | None = None
    layers: tuple[LayerTime, ...]
    blocks: tuple[PartTime, ...] = ()
    parts: tuple[PartTime, ...] = ()
