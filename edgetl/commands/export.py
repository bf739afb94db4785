from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import run_study, study_arguments


@click.command("export")
@study_arguments
def command(study: Path, output: Path) -> None:
    """Write ONNX graphs, prepared in every precision.

    Each graph is checked against PyTorch on real images; INT8 is calibrated on images drawn from train.

    \b
    Example:  edgetl export configs/digits.yaml -o runs/digits
    """
    run_study(study, output, ["export"])
    click.echo(output / "graphs")
