from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.options import argument, make_command, option, part
from edgetl.commands.preprocessing_options import PreprocessingOptions
from edgetl.commands.study_command import TerminalReporter


class _CompareOptions(PreprocessingOptions):
    a: Path = argument("A.onnx")
    b: Path = argument("B.onnx")
    images: Path = option("Folder of images, or a text file that lists their paths.")
    limit: int = option("Compare on so many images.", type=click.IntRange(1), default=256)
    as_json: bool = option("Print the figures for programs.", "--json")


@make_command("compare", _CompareOptions)
def command(options: _CompareOptions) -> None:
    """Find where B differs from A: two precisions of one network on the same images.

    Prints the agreement of the outputs, the layers with the lowest signal-to-noise ratio, and the images that differ
    most.

    \b
    Example:  edgetl compare m.onnx m.int8.onnx --images photos
    """
    from edgetl.report.terminal import comparison_lines
    from edgetl.stages.compare_files import CompareRequest, compare_files

    request = CompareRequest(**part(options, CompareRequest), contract=options.contract())
    comparison = compare_files(request, TerminalReporter())
    click.echo(comparison.model_dump_json(indent=1) if options.as_json else "\n".join(comparison_lines(comparison)))
