"""Print profiles, and judge them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgetl.commands.console import echo
from edgetl.commands.shared_options import JudgingOptions
from edgetl.commands.study_command import TerminalReporter

if TYPE_CHECKING:
    from edgetl.artifacts.results import Profile


def show(profile: Profile, as_json: bool) -> None:
    """Print all figures of a profile."""
    from edgetl.report.profile_lines import profile_lines

    if as_json:
        click.echo(profile.model_dump_json(indent=1))
        return
    click.echo("\n".join(profile_lines(profile)))
    show_where_time_goes(profile)
    show_scenarios(profile)


def show_where_time_goes(profile: Profile) -> None:
    """Print tables of layers and of the way from file to answer, where they were measured."""
    from edgetl.report.time_breakdown import where_time_goes

    echo(*where_time_goes(profile))


def show_scenarios(profile: Profile) -> None:
    """Print a table of each scenario that was measured."""
    if not profile.scenarios:
        return
    from edgetl.report.scenario_tables import render_scenarios

    echo("", *render_scenarios(profile.scenarios))


def judge(profile: Profile, options: JudgingOptions, limit: float | None = None) -> None:
    """Raise NotMetError where `edgetl.report.profile_lines.check_gate` finds one model too slow or nothing proven."""
    from edgetl.report.profile_lines import check_gate

    check_gate(profile, limit, options.strict, TerminalReporter().message)
