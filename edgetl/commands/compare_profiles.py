from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.console import echo
from edgetl.commands.options import CommandOptions, argument, make_command, option
from edgetl.commands.show_profile import show


class _CompareProfilesOptions(CommandOptions):
    files: tuple[Path, ...] = argument("PROFILE.json...")
    as_json: bool = option("Print the figures in the shape of results.json.", "--json")


@make_command("compare-profiles", _CompareProfilesOptions)
def command(options: _CompareProfilesOptions) -> None:
    """Show profiles of several devices in one table, or all figures of a single one.

    Nothing is measured: every figure is computed anew from the raw samples that lie beside the file, a profile.json,
    latency.json or results.json.

    \b
    Example:  edgetl compare-profiles nano/profile.json orin/profile.json
    """
    from edgetl.report.profile_lines import profiles_json
    from edgetl.report.terminal import loaded_table
    from edgetl.stages.reload import reload

    profiles = {str(path): reload(path) for path in options.files}
    if len(profiles) == 1:
        show(next(iter(profiles.values())), options.as_json)
    elif options.as_json:
        click.echo(profiles_json([*profiles.values()]))
    else:
        echo(loaded_table(profiles))
