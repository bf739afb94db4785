from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, Terminal
from edgetl.report.wording import MOST_LISTED, abridged, count, flops, megabytes, printable

if TYPE_CHECKING:
    from edgetl.stages.fuse import Fusion

UNKNOWN = "-"

_Cell = tuple[str, str]


@click.command("fuse")
@click.argument("models", metavar="MODEL.onnx MODEL.onnx...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="The ONNX file to write.")
@click.option("--names", help="What to call the models, separated by commas.", show_default="their files' names")
@click.option("--images", type=PATH, help="Folder of images to verify on, besides random ones.")
@click.option("--recalibrate", is_flag=True, help="INT8: where scales of a shared tensor differ, unite its ranges.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures for programs.")
def command(
    models: tuple[Path, ...],
    output: Path,
    names: str | None,
    images: Path | None,
    recalibrate: bool,
    as_json: bool,
) -> None:
    """Merge models that share layers into one ONNX file, which computes what they do.

    Layers are the same where operator, attributes, weights and inputs are; each is kept once. Prints where sharing ends
    and why. The result is written only if it has the models' outputs, named MODEL/OUTPUT.

    --recalibrate changes what the models compute: all else is lossless.

    \b
    Example:  edgetl fuse vehicles.onnx signs.onnx -o fused.onnx --images photos
    """
    from edgetl.stages.fuse import FuseOrder, fuse_files

    order = FuseOrder(_named(models, names), output, images, recalibrate)
    fusion = fuse_files(order, Terminal())
    if as_json:
        click.echo(json.dumps(asdict(fusion), indent=1, ensure_ascii=False))
        return
    for line in (*_parting(fusion), *_scales(fusion), "", *_table(fusion), "", *_outcome(fusion)):
        click.echo(line)
    click.echo(output)


def _named(models: tuple[Path, ...], names: str | None) -> dict[str, Path]:
    from edgetl.errors import EdgetlError

    if len(models) < 2:
        raise click.UsageError("give two models at least")
    chosen = [model.stem for model in models] if names is None else [name.strip() for name in names.split(",")]
    if len(chosen) != len(models):
        raise click.UsageError(f"--names has {len(chosen)} names for {len(models)} models")
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise EdgetlError(f"two models are called {twice!r}; tell them apart with --names NAME,NAME")
    unfit = next((name for name in chosen if not name or "/" in name), None)
    if unfit is not None:
        raise EdgetlError(f"a model cannot be called {unfit!r}; give --names without / and none empty")
    return dict(zip(chosen, models, strict=True))


def _parting(fusion: Fusion) -> Iterator[str]:
    for found in fusion.divergences:
        yield f"{found.model} against {found.against}: {found.shared} of {count(found.layers, 'layer')} shared"
        where = "" if found.layer is None else f"first differing layer: {printable(found.layer)}: "
        yield f"  {where}{printable(found.reason)}"


def _scales(fusion: Fusion) -> Iterator[str]:
    conflicts = fusion.conflicts
    if conflicts:
        done = "the ranges were united" if fusion.moved is not None else "sharing ends there without --recalibrate"
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
            (f"{own.layers:,}", _share(shared.layers, own.layers)),
            (_number(own.parameters), _share(shared.parameters, own.parameters)),
            (_flops(own.flops), _share(shared.flops, own.flops)),
            _file(fusion.bytes[name]),
        )
    together = sharing.together
    figures = ((f"{together.layers:,}", ""), (_number(together.parameters), ""), (_flops(together.flops), ""))
    yield _row("together", width, *figures, _file(fusion.fused_bytes))


def _row(name: str, width: int, layers: _Cell, parameters: _Cell, work: _Cell, file: str) -> str:
    cells = f"{layers[0]:>6}{layers[1]:>8}{parameters[0]:>13}{parameters[1]:>8}{work[0]:>13}{work[1]:>8}{file:>10}"
    return f"{name:<{width}}{cells}"


def _share(part: int | None, whole: int | None) -> str:
    """In percent, rounded down: what is not all is not 100.0 %."""
    return f"{part * 1000 // whole / 10:.1f} %" if whole and part is not None else ""


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _flops(value: int | None) -> str:
    return UNKNOWN if value is None else flops(value)


def _file(size: int) -> str:
    return f"{megabytes(size)} MB"


def _outcome(fusion: Fusion) -> Iterator[str]:
    sharing, verified = fusion.sharing, fusion.verified
    if sharing.gain is None:
        yield f"predicted gain: unknown: {printable(sharing.untold or 'the graph costs nothing')}"
    else:
        yield f"predicted gain: {sharing.gain:.2f} times (an estimate; measure it with edgetl profile)"
    if fusion.moved is not None:
        yield f"largest difference that recalibration makes: {fusion.moved:.3g}"
    if verified.random:
        yield f"not compared, because they depend on chance: {printable(abridged(verified.random))}"
    images = count(fusion.random_images, "random image")
    if fusion.real_images:
        images = f"{images} and {count(fusion.real_images, 'real one')}"
    yield f"largest difference to the separate models: {verified.difference:.3g} (on {images})"
