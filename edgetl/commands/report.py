from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.console import echo, text_width
from edgetl.commands.study_command import run_study, study_arguments

if TYPE_CHECKING:
    from edgetl.artifacts.run_directory import RunDirectory


@click.command("report")
@study_arguments
@click.option("--strict", is_flag=True, help="Exit with 4 if the budget is not met or the result is unstable.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def command(study: Path, output: Path, strict: bool, as_json: bool) -> None:
    """Decide which candidate to ship, and write results.json and report.html.

    After a change of the budget only this command is needed: nothing is measured again.

    \b
    Example:  edgetl report configs/digits.yaml -o runs/digits
    """
    done = run_study(study, output, ["report"])
    show(done.directory, strict, as_json)


def show(run: RunDirectory, strict: bool, as_json: bool) -> None:
    """Print what the report stage wrote.

    Raises:
        NotMetError: with ``strict``, the budget is not met or the result is unstable.
    """
    from edgetl.artifacts.files import read_json
    from edgetl.artifacts.results import Results
    from edgetl.errors import NotMetError
    from edgetl.report.text import render_table, render_verdict

    results = read_json(run.results, Results)
    if as_json:
        click.echo(run.results.read_text(encoding="utf-8"), nl=False)
    else:
        echo(render_table(results))
        click.echo(render_verdict(results.verdict, text_width()))
        click.echo(f"\nReport: {run.report}")
    if strict and not results.verdict.budget_met:
        raise NotMetError("no deployment meets the budget")
    if strict and not results.verdict.stable:
        raise NotMetError("the verdict rests on an unstable measurement")
