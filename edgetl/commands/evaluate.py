from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import run_study, study_arguments


@click.command("evaluate")
@study_arguments
def command(study: Path, output: Path) -> None:
    """Measure the accuracy of every deployment on the test set, by its engines.

    \b
    Example:  edgetl evaluate configs/digits.yaml -o runs/digits
    """
    run_study(study, output, ["evaluate"])
    click.echo(output / "measurements" / "accuracy.json")
