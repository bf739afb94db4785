from __future__ import annotations

import click

from edgetl.commands.options import CommandOptions, make_command, option


class _DoctorOptions(CommandOptions):
    as_json: bool = option("Print it for programs.", "--json")


@make_command("doctor", _DoctorOptions)
def command(options: _DoctorOptions) -> None:
    """Tell what is on this machine, what is missing for which command, and the command that fixes it.

    \b
    Example:  edgetl doctor --json
    """
    from edgetl.report.terminal import health_lines
    from edgetl.stages.examine_machine import examine

    report = examine()
    click.echo(report.model_dump_json(indent=1) if options.as_json else "\n".join(health_lines(report)))
