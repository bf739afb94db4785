from __future__ import annotations

import click

from edgetl.commands.options import make_command, part
from edgetl.commands.shared_options import ProviderOption, StudyArguments
from edgetl.commands.study_command import run_study


class _EvaluateOptions(StudyArguments, ProviderOption):
    pass


@make_command("evaluate", _EvaluateOptions)
def command(options: _EvaluateOptions) -> None:
    """Measure the accuracy of every deployment on the test set, by its engines.

    \b
    Example:  edgetl evaluate configs/digits.yaml -o runs/digits
    """
    from edgetl.stages.stage import Options

    run_study(options.study, options.output, ["evaluate"], Options(**part(options, Options)))
    click.echo(options.output / "measurements" / "accuracy.json")
