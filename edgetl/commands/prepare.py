from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, Terminal

if TYPE_CHECKING:
    from edgetl.graph.placement import Target


@click.command("prepare")
@click.argument("model", type=PATH)
@click.option("--precision", required=True, type=click.Choice(["fp16", "int8"]))
@click.option("-o", "--output", required=True, type=PATH, help="The ONNX file to write.")
@click.option("--calibration-images", type=PATH, help="Folder of images like the real ones; INT8 needs it.")
@click.option("--recipe", show_default="default", help="A recipe's name in calibration/, or its path.")
@click.option(
    "--target",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    show_default="tensorrt",
    help="Whose spelling of INT8: the two are fast on different graphs.",
)
def command(
    model: Path,
    precision: str,
    output: Path,
    calibration_images: Path | None,
    recipe: str | None,
    target: Target | None,
) -> None:
    """Write one ONNX file in FP16 or INT8: the precision is in its types and Q/DQ nodes.

    \b
    Example:  edgetl prepare m.onnx --precision int8 --calibration-images photos -o m.int8.onnx
    """
    if precision == "fp16" and (calibration_images or recipe or target):
        raise click.UsageError("--calibration-images, --recipe and --target are for --precision int8")
    from edgetl.stages.prepare import Preparation, prepare_file

    prepare_file(
        model, output, Preparation(precision, target or "tensorrt", calibration_images, recipe or "default"), Terminal()
    )
    click.echo(output)
