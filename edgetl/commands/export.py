from __future__ import annotations

import click

from edgetl.commands.options import make_command
from edgetl.commands.shared_options import StudyArguments
from edgetl.commands.study_command import run_study


@make_command("export", StudyArguments)
def command(options: StudyArguments) -> None:
    """Write a study's ONNX graphs, prepared in every precision.

    Each graph is checked against PyTorch on real images; INT8 is calibrated on images drawn from train. The graph of a
    detector returns boxes after suppression. A Darknet network is made an ONNX file by edgetl import-darknet.

    \b
    Example:  edgetl export configs/digits.yaml -o runs/digits
    """
    if options.study.suffix == ".cfg":
        raise click.UsageError(f"a study is a .yaml file; {options.study} is for edgetl import-darknet")
    run_study(options.study, options.output, ["export"])
    click.echo(options.output / "graphs")
