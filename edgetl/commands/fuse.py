from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgetl.commands.preprocessing_options import preprocessing_options, take_contract
from edgetl.commands.study_command import PATH, TerminalReporter


@click.command("fuse")
@click.argument("models", metavar="MODEL.onnx MODEL.onnx...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="The ONNX file to write.")
@click.option("--names", help="What to call the models, separated by commas.", show_default="their files' names")
@click.option("--images", type=PATH, help="Folder of images to verify on, besides random ones.")
@click.option("--recalibrate", is_flag=True, help="INT8: where scales of a shared tensor differ, unite its ranges.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures for programs.")
@preprocessing_options
def command(
    models: tuple[Path, ...],
    output: Path,
    names: str | None,
    images: Path | None,
    recalibrate: bool,
    as_json: bool,
    **preprocessing: Any,
) -> None:
    """Merge models that share layers into one ONNX file, which computes the same.

    Layers with the same operator, attributes, weights and inputs are kept once. Prints where sharing ends and why. The
    result is written only if it computes the models' outputs, named MODEL/OUTPUT.

    Only --recalibrate changes what the models compute: everything else is lossless.

    \b
    Example:  edgetl fuse vehicles.onnx signs.onnx -o fused.onnx --images photos
    """
    from edgetl.report.fusion import fusion_lines
    from edgetl.stages.fuse_files import FuseRequest, fuse_files

    request = FuseRequest(_named(models, names), output, images, recalibrate, take_contract(preprocessing))
    fusion = fuse_files(request, TerminalReporter())
    if as_json:
        click.echo(json.dumps(asdict(fusion), indent=1, ensure_ascii=False))
        return
    for line in fusion_lines(fusion):
        click.echo(line)
    click.echo(output)


def _named(models: tuple[Path, ...], names: str | None) -> dict[str, Path]:
    """The models by the names of ``--names``, or of their files."""
    from edgetl.errors import EdgetlError

    if len(models) < 2:
        raise click.UsageError("give two models at least")
    chosen = [model.stem for model in models] if names is None else [name.strip() for name in names.split(",")]
    if len(chosen) != len(models):
        raise click.UsageError(f"--names has {len(chosen)} names for {len(models)} models")
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise EdgetlError(f"two models are called {twice!r}; tell them apart with --names NAME,NAME")
    # A slash stands between a model's name and an output's.
    unfit = next((name for name in chosen if not name or "/" in name), None)
    if unfit is not None:
        raise EdgetlError(f"a model cannot be called {unfit!r}; give --names without / and none empty")
    return dict(zip(chosen, models, strict=True))
