from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgetl.commands.console import echo, text_width
from edgetl.commands.options import make_command
from edgetl.commands.shared_options import StudyArguments, VerdictOptions
from edgetl.commands.study_command import run_study

if TYPE_CHECKING:
    from edgetl.artifacts.run_directory import RunDirectory


class _ReportOptions(StudyArguments, VerdictOptions):
    pass


@make_command("report", _ReportOptions)
def command(options: _ReportOptions) -> None:
    """Decide which candidate to ship, and write results.json and report.html.

    After a change of the budget only this command is needed: nothing is measured again.

    \b
    Example:  edgetl report configs/digits.yaml -o runs/digits
    """
    show(run_study(options.study, options.output, ["report"]).directory, options)


def show(run: RunDirectory, options: VerdictOptions) -> None:
    """Print what the report stage wrote.

    Raises:
        NotMetError: with ``strict``, the budget is not met or the result is unstable.
    """
    from edgetl.artifacts.files import read_json
    from edgetl.artifacts.results import Results
    from edgetl.errors import NotMetError
    from edgetl.report.text import render_table, render_verdict

    results = read_json(run.results, Results)
    if options.as_json:
        click.echo(run.results.read_text(encoding="utf-8"), nl=False)
    else:
        echo(render_table(results))
        click.echo(render_verdict(results.verdict, text_width()))
        click.echo(f"\nReport: {run.report}")
    if options.strict and not results.verdict.budget_met:
        raise NotMetError("no deployment meets the budget")
    if options.strict and not results.verdict.stable:
        raise NotMetError("the verdict rests on an unstable measurement")
