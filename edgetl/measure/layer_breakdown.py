"""Layers folded by block and by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgetl.artifacts.measurements import EngineLayers, LayerTime, PartTime

_BLOCKS = 8
_OWN = "put in by the runtime"
_DIGITS = 6

NodePath = tuple[str, ...]


@dataclass(frozen=True)
class NodeTime:
    """A layer as an engine names it, its ONNX node where it has one, and its milliseconds."""

    layer: str
    node: str | None
    operator: str
    ms: float


@dataclass(frozen=True)
class EngineProfile:
    """What the layers are held against: see `EngineLayers`."""

    engine: str
    source: str
    runs: int
    profiled_ms: float
    latency_ms: float | None = None


def fold(timed: Sequence[NodeTime], whole: EngineProfile, parts: Mapping[str, str]) -> EngineLayers:
    """Shares, blocks, and the parts that ``parts`` tells of nodes."""
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
    return EngineLayers(
        engine=whole.engine,
        source=whole.source,
        runs=whole.runs,
        sum_ms=round(total, _DIGITS),
        profiled_ms=round(whole.profiled_ms, _DIGITS),
        latency_ms=whole.latency_ms,
        layers=layers,
        blocks=_blocks(timed, total),
        parts=_parts(layers, total),
    )


def _fraction(ms: float, total: float) -> float:
    return round(ms / total, _DIGITS) if total else 0.0


def _parts(layers: Sequence[LayerTime], total: float) -> tuple[PartTime, ...]:
    names = list(dict.fromkeys(layer.part or _OWN for layer in layers))
    if set(names) <= {"trunk", _OWN}:
        return ()
    together = {name: [layer.ms for layer in layers if (layer.part or _OWN) == name] for name in names}
    return tuple(_part(name, ms, total) for name, ms in together.items())


def _part(name: str, ms: Sequence[float], total: float) -> PartTime:
    return PartTime(name=name, layers=len(ms), ms=round(sum(ms), _DIGITS), fraction=_fraction(sum(ms), total))


def _blocks(timed: Sequence[NodeTime], total: float) -> tuple[PartTime, ...]:
    """Layers by the common beginning of their names: the block that takes longest is split until there are enough.

    Names are paths (``/layer1/layer1.0/conv1/Conv``). Where few share a beginning there are no blocks.
    """
    named = [(tuple((layer.node or f"{_OWN}/{layer.layer}").strip("/").split("/")), layer.ms) for layer in timed]
    blocks: dict[NodePath, list[tuple[NodePath, float]]] = {(): named}
    while len(blocks) < _BLOCKS:
        wide = [path for path, inside in blocks.items() if len({name for name, _ in inside}) > 1]
        slowest = max(wide, key=lambda path: sum(ms for _, ms in blocks[path]), default=None)
        if slowest is None:
            break
        blocks = _split(blocks, slowest)
    if 2 * len(blocks) > len(timed):
        return ()
    return tuple(_part("/".join(path), [ms for _, ms in inside], total) for path, inside in blocks.items())


def _split(
    blocks: Mapping[NodePath, list[tuple[NodePath, float]]], slowest: NodePath
) -> dict[NodePath, list[tuple[NodePath, float]]]:
    """One component further, the others as they are, in the order of the network."""
    result: dict[NodePath, list[tuple[NodePath, float]]] = {}
    for path, inside in blocks.items():
        for name, ms in inside:
            key = name[: len(path) + 1] if path == slowest else path
            result.setdefault(key, []).append((name, ms))
    return result
