from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgetl.commands.preprocessing_options import preprocessing_options, take_contract
from edgetl.commands.study_command import PATH, TerminalReporter


@click.command("compare")
@click.argument("a", metavar="A.onnx", type=PATH)
@click.argument("b", metavar="B.onnx", type=PATH)
@click.option("--images", required=True, type=PATH, help="Folder of images, or a text file that lists their paths.")
@click.option("--limit", type=click.IntRange(1), default=256, show_default=True, help="Compare on so many images.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures for programs.")
@preprocessing_options
def command(a: Path, b: Path, images: Path, limit: int, as_json: bool, **preprocessing: Any) -> None:
    """Find where B differs from A: two precisions of one network on the same images.

    Prints the agreement of the outputs, the layers with the lowest signal-to-noise ratio, and the images that differ
    most.

    \b
    Example:  edgetl compare m.onnx m.int8.onnx --images photos
    """
    from edgetl.report.terminal import comparison_lines
    from edgetl.stages.compare_files import CompareRequest, compare_files

    comparison = compare_files(CompareRequest(a, b, images, limit, take_contract(preprocessing)), TerminalReporter())
    click.echo(comparison.model_dump_json(indent=1) if as_json else "\n".join(comparison_lines(comparison)))
