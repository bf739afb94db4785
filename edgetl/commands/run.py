from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import provider_option, run_study, seconds_option, study_arguments, threads_option


@click.command("run")
@study_arguments
@provider_option
@threads_option
@seconds_option
@click.option("--strict", is_flag=True, help="Exit with 4 if the budget is not met or the result is unstable.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def command(
    study: Path, output: Path, provider: str, threads: int, seconds: float, strict: bool, as_json: bool
) -> None:
    """Do a whole study: from images to a verdict.

    Stages that are up to date are not run again, so a run that was killed goes on where it stopped.

    \b
    Example:  edgetl run configs/digits.yaml -o runs/digits
    """
    # Imported here, as in every command: `edgetl run --help` and usage errors wait for none of it.
    from edgetl.commands.report import show
    from edgetl.stages.run_study import STAGES
    from edgetl.stages.stage import Options

    done = run_study(study, output, list(STAGES), Options(threads=threads, seconds=seconds, provider=provider))
    show(done.directory, strict, as_json)
