from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from edgetl.commands.options import argument, make_command, option, part
from edgetl.commands.preprocessing_options import PreprocessingOptions
from edgetl.commands.study_command import TerminalReporter


class _FuseOptions(PreprocessingOptions):
    models: tuple[Path, ...] = argument("MODEL.onnx MODEL.onnx...")
    output: Path = option("The ONNX file to write.", "-o", "--output")
    names: str | None = option("What to call the models, separated by commas.", show_default="their files' names")
    images: Path | None = option("Folder of images to verify on, besides random ones.")
    recalibrate: bool = option("INT8: where scales of a shared tensor differ, unite its ranges.")
    as_json: bool = option("Print the figures for programs.", "--json")


@make_command("fuse", _FuseOptions)
def command(options: _FuseOptions) -> None:
    """Merge models that share layers into one ONNX file, which computes the same.

    Layers with the same operator, attributes, weights and inputs are kept once. Prints where sharing ends and why. The
    result is written only if it computes the models' outputs, named MODEL/OUTPUT.

    Only --recalibrate changes what the models compute: everything else is lossless.

    \b
    Example:  edgetl fuse vehicles.onnx signs.onnx -o fused.onnx --images photos
    """
    from edgetl.report.fusion import fusion_lines
    from edgetl.stages.fuse_files import FuseRequest, fuse_files, named_models

    if len(options.models) < 2:
        raise click.UsageError("give two models at least")
    names = None if options.names is None else [name.strip() for name in options.names.split(",")]
    graphs = named_models(options.models, names)
    request = FuseRequest(graphs=graphs, **part(options, FuseRequest), contract=options.contract())
    fusion = fuse_files(request, TerminalReporter())
    if options.as_json:
        click.echo(json.dumps(asdict(fusion), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join([*fusion_lines(fusion), str(options.output)]))
