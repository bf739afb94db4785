"""Times of an engine's layers, summed by block and by part of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetl.artifacts.measurements import EngineLayers, LayerTime, PartTime

_BLOCKS = 8
_OWN = "put in by the runtime"
# Decimals of milliseconds and fractions in a results file: nanoseconds, finer than any profiler.
_DIGITS = 6

NodePath = tuple[str, ...]


@dataclass(frozen=True)
class NodeTime:
    """A layer's name in the engine, its ONNX node where it has one, and its milliseconds."""

    layer: str
    node: str | None
    operator: str
    ms: float


@dataclass(frozen=True)
class EngineProfile:
    """The engine that was profiled and its latency as a whole: see `EngineLayers`."""

    engine: str
    source: str
    runs: int
    profiled_ms: float
    latency_ms: float | None = None


def fold(timed: Sequence[NodeTime], whole: EngineProfile, parts: Mapping[str, str]) -> EngineLayers:
    """Return the layers with their fractions and the sums by block and by part, which ``parts`` knows of each node."""
    total = sum(layer.ms for layer in timed)
    layers = tuple(
        LayerTime(
            layer=layer.layer,
            node=layer.node,
            operator=layer.operator,
            part=parts.get(layer.node) if layer.node is not None else None,
            ms=round(layer.ms, _DIGITS),
            fraction=_fraction(layer.ms, total),
        )
        for layer in timed
    )
    by_part: dict[str, list[float]] = {}
    for layer in layers:
        by_part.setdefault(layer.part or _OWN, []).append(layer.ms)
    # A trunk alone is the whole engine: the table would have one row.
    divided = not by_part.keys() <= {"trunk", _OWN}
    return EngineLayers(
        engine=whole.engine,
        source=whole.source,
        runs=whole.runs,
        sum_ms=round(total, _DIGITS),
        profiled_ms=round(whole.profiled_ms, _DIGITS),
        latency_ms=whole.latency_ms,
        layers=layers,
        blocks=_blocks(timed, total),
        parts=tuple(_part(name, ms, total) for name, ms in by_part.items()) if divided else (),
    )


def _fraction(ms: float, total: float) -> float:
    return round(ms / total, _DIGITS) if total else 0.0


def _part(name: str, ms: Sequence[float], total: float) -> PartTime:
    return PartTime(name=name, layers=len(ms), ms=round(sum(ms), _DIGITS), fraction=_fraction(sum(ms), total))


def _blocks(timed: Sequence[NodeTime], total: float) -> tuple[PartTime, ...]:
    """Return sums by the common beginning of names: the block that takes longest is split until there are enough.

    Names are paths (``/layer1/layer1.0/conv1/Conv``). Where few share a beginning there are no blocks.
    """
    named = [(tuple((layer.node or f"{_OWN}/{layer.layer}").strip("/").split("/")), layer.ms) for layer in timed]
    blocks: dict[NodePath, list[tuple[NodePath, float]]] = {(): named}
    while len(blocks) < _BLOCKS:
        wide = [path for path, inside in blocks.items() if len({name for name, _ in inside}) > 1]
        slowest = max(wide, key=lambda path: sum(ms for _, ms in blocks[path]), default=None)
        if slowest is None:
            break
        # Rebuilt, not extended: blocks stay in the order of the network.
        split: dict[NodePath, list[tuple[NodePath, float]]] = {}
        for path, inside in blocks.items():
            for name, ms in inside:
                split.setdefault(name[: len(path) + 1] if path == slowest else path, []).append((name, ms))
        blocks = split
    if 2 * len(blocks) > len(timed):
        return ()
    return tuple(_part("/".join(path), [ms for _, ms in inside], total) for path, inside in blocks.items())
