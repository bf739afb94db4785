"""Lines that `edgetl fuse` prints: where sharing ends and why, what is shared, and what is gained by it."""

from __future__ import annotations

from collections.abc import Iterator

from edgetl.artifacts.fusion_report import Fusion
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import MOST_LISTED, abridged, count, flops, megabytes, printable

_Cell = tuple[str, str]


def fusion_lines(fusion: Fusion) -> Iterator[str]:
    """Yield plain lines for a terminal."""
    for found in fusion.divergences:
        yield f"{found.model} against {found.against}: {found.shared} of {count(found.layers, 'layer')} shared"
        where = "" if found.layer is None else f"first differing layer: {printable(found.layer)}: "
        yield f"  {where}{printable(found.reason)}"
    yield from (*_scales(fusion), "", *_table(fusion), "")
    sharing, verified = fusion.sharing, fusion.verified
    if sharing.gain is None:
        yield f"predicted gain: unknown: {printable(sharing.why_unknown or 'the graph costs nothing')}"
    else:
        yield f"predicted gain: {sharing.gain:.2f} times (an estimate; measure it with edgetl profile)"
    if fusion.recalibration_difference is not None:
        yield f"largest difference that recalibration makes: {fusion.recalibration_difference:.3g}"
    if verified.random:
        yield f"not compared, because they depend on chance: {printable(abridged(verified.random))}"
    images = count(fusion.random_images, "random image")
    if fusion.real_images:
        images = f"{images} and {count(fusion.real_images, 'real one')}"
    yield f"largest difference to the separate models: {verified.difference:.3g} (on {images})"


def _scales(fusion: Fusion) -> Iterator[str]:
    conflicts = fusion.conflicts
    if conflicts:
        united = fusion.recalibration_difference is not None
        done = "the ranges were united" if united else "sharing ends there without --recalibrate"
        yield f"scales differ on {count(len(conflicts), 'tensor')}; {done}:"
    for conflict in conflicts[:MOST_LISTED]:
        scales = ", ".join(f"{scale:.6g} in {name}" for name, scale in conflict.scales.items())
        yield f"  {printable(conflict.tensor)}: {scales}"
    if len(conflicts) > MOST_LISTED:
        yield f"  and {len(conflicts) - MOST_LISTED} more; --json lists them all"


def _table(fusion: Fusion) -> Iterator[str]:
    sharing, width = fusion.sharing, max(8, *map(len, fusion.bytes))
    yield _row("", width, ("layers", "shared"), ("parameters", "shared"), ("FLOPs", "shared"), "file")
    for name, own in sharing.own.items():
        shared = sharing.shared[name]
        yield _row(
            name,
            width,
            (f"{own.layers:,}", _fraction(shared.layers, own.layers)),
            (_number(own.parameters), _fraction(shared.parameters, own.parameters)),
            (_flops(own.flops), _fraction(shared.flops, own.flops)),
            _file(fusion.bytes[name]),
        )
    together = sharing.fused
    figures = ((f"{together.layers:,}", ""), (_number(together.parameters), ""), (_flops(together.flops), ""))
    yield _row("together", width, *figures, _file(fusion.fused_bytes))


def _row(name: str, width: int, layers: _Cell, parameters: _Cell, work: _Cell, file: str) -> str:
    cells = f"{layers[0]:>6}{layers[1]:>8}{parameters[0]:>13}{parameters[1]:>8}{work[0]:>13}{work[1]:>8}{file:>10}"
    return f"{name:<{width}}{cells}"


def _fraction(part: int | None, whole: int | None) -> str:
    # Rounded down: what is not all is not 100.0 %.
    return f"{part * 1000 // whole / 10:.1f} %" if whole and part is not None else ""


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _flops(value: int | None) -> str:
    return UNKNOWN if value is None else flops(value)


def _file(size: int) -> str:
    return f"{megabytes(size)} MB"
