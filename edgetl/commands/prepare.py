from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, Terminal

if TYPE_CHECKING:
    from edgetl.graph.quantise import Target


@click.command("prepare")
@click.argument("model", type=PATH)
@click.option("--precision", required=True, type=click.Choice(["fp16", "int8"]))
@click.option("-o", "--output", required=True, type=PATH, help="The ONNX file to write.")
@click.option("--calibration-images", type=PATH, help="Folder of images like the real ones; INT8 needs it.")
@click.option("--recipe", default="default", show_default=True, help="A recipe's name in calibration/, or its path.")
@click.option(
    "--target",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    default="tensorrt",
    show_default=True,
    help="Whose spelling of INT8: the two are fast on different graphs.",
)
def command(
    model: Path, precision: str, output: Path, calibration_images: Path | None, recipe: str, target: Target
) -> None:
    """Write one ONNX file in FP16 or INT8: the precision is in its types and Q/DQ nodes.

    \b
    Example:  edgetl prepare m.onnx --precision int8 --calibration-images photos -o m.int8.onnx
    """
    from edgetl.stages.prepare import Preparation, prepare_file

    prepare_file(model, output, Preparation(precision, target, calibration_images, recipe), Terminal())
    click.echo(output)
