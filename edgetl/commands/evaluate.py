from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import provider_option, run_study, study_arguments


@click.command("evaluate")
@study_arguments
@provider_option
def command(study: Path, output: Path, provider: str) -> None:
    """Measure the accuracy of every deployment on the test set, by its engines.

    \b
    Example:  edgetl evaluate configs/digits.yaml -o runs/digits
    """
    from edgetl.stages.stage import Options

    run_study(study, output, ["evaluate"], Options(provider=provider))
    click.echo(output / "measurements" / "accuracy.json")
