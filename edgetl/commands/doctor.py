from __future__ import annotations

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def command(as_json: bool) -> None:
    """Tell what is on this machine, what is missing for which command, and the command that fixes it.

    \b
    Example:  edgetl doctor --json
    """
    from edgetl.report.terminal import health_lines
    from edgetl.stages.examine_machine import examine

    report = examine()
    click.echo(report.model_dump_json(indent=1) if as_json else "\n".join(health_lines(report)))
