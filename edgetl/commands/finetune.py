from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import run_study, study_arguments


@click.command("finetune")
@study_arguments
@click.option(
    "--quantization-aware",
    is_flag=True,
    help="Train for INT8: heads on the INT8 trunk's features, tuned layers rounded as INT8 rounds them.",
)
def command(study: Path, output: Path, quantization_aware: bool) -> None:
    """Train the heads of every deployment on the frozen backbone.

    The images go through the backbone once; all heads are fitted together on the cached features.

    \b
    Examples:  edgetl finetune configs/digits.yaml -o runs/digits
               edgetl finetune configs/digits.yaml -o runs/int8 --quantization-aware
    """
    # The search too, which needs the heads alone: its shortlist is a part of the bundle.
    run_study(study, output, ["index", "finetune", "search"], quantization_aware=quantization_aware)
    click.echo(output / "bundle" / "bundle.json")
