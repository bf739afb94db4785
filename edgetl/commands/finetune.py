from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import run_study, study_arguments


@click.command("finetune")
@study_arguments
def command(study: Path, output: Path) -> None:
    """Train the heads of every deployment on the frozen backbone.

    The images go through the backbone once; all heads are fitted together on the cached features.

    \b
    Example:  edgetl finetune configs/digits.yaml -o runs/digits
    """
    run_study(study, output, ["index", "finetune", "search"])
    click.echo(output / "bundle" / "bundle.json")
