from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.console import echo
from edgetl.commands.profile_elsewhere import elsewhere_options, profile_on_hosts, refuse_at_home, show_estimates
from edgetl.commands.profile_options import profile_options, profile_request, refuse_in_study, scenario_request
from edgetl.commands.study_command import PATH, TerminalReporter, run_study

if TYPE_CHECKING:
    from edgetl.artifacts.results import Profile


@click.command("profile")
@click.argument("sources", metavar="STUDY.yaml|MODEL.onnx|FILE.engine...", nargs=-1, type=PATH)
@profile_options
@elsewhere_options
def command(sources: tuple[Path, ...], as_json: bool, **values: Any) -> None:
    """Measure the latency of every deployment, or of ONNX files and engines, side by side.

    All candidates are timed in interleaved rounds in one process; ratios are taken round by round.

    \b
    Examples:  edgetl profile configs/digits.yaml -o runs/digits --threads 1
               edgetl profile new.onnx --against old.onnx --fail-if-slower 5%
               edgetl profile model.onnx --layers --images photos
               edgetl profile signs.onnx people.onnx --scenario cadence --rate signs=5 --rate people=30
               edgetl profile --load nano.json --load orin.json
               edgetl profile model.onnx --on nano --on orin
               edgetl profile model.onnx --estimate "Orin Nano 8GB" --precision int8
    """
    refuse_at_home(values)
    # Five modes, told apart by their options; usage errors come before anything heavy is imported.
    if sum(bool(values[name]) for name in ("load", "on", "estimate")) > 1:
        raise click.UsageError("--load, --on and --estimate exclude each other")
    if values["estimate"]:
        show_estimates(sources, values, as_json)
    elif values["on"]:
        for profile in profile_on_hosts(sources, values, as_json):
            _judge(profile, values["fail_if_slower"], values["strict"])
    elif values["load"]:
        if sources:
            raise click.UsageError("--load measures nothing; leave the models out")
        from edgetl.stages.reload import reload

        _show_loaded({str(path): reload(path) for path in values["load"]}, as_json)
    elif not sources:
        raise click.UsageError("give a STUDY.yaml with -o DIR, models, or --load FILE")
    elif sources[0].suffix in {".onnx", ".engine"}:
        from edgetl.stages.profile_files import profile_files

        profile = profile_files(profile_request(sources, values), TerminalReporter())
        _show(profile, as_json)
        _judge(profile, values["fail_if_slower"], values["strict"])
    else:
        _profile_study(sources, values, as_json)


def _profile_study(sources: tuple[Path, ...], values: dict[str, Any], as_json: bool) -> None:
    if len(sources) > 1:
        raise click.UsageError("give one STUDY.yaml with -o DIR, or MODEL.onnx files")
    refuse_in_study(values)
    output: Path | None = values["output"]
    if output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    from edgetl.artifacts.files import read_json
    from edgetl.artifacts.results import Profile
    from edgetl.stages.stage import Options

    options = Options(
        threads=values["threads"],
        seconds=values["seconds"],
        interval_width=values["width"],
        provider=values["provider"],
        energy=not values["no_energy"],
        layers=values["layers"],
        scenarios=scenario_request(values),
    )
    run_study(sources[0], output, ["profile"], options)
    # The file is read again and not the context: an up-to-date stage measured nothing in this process.
    written = output / "measurements" / "latency.json"
    profile = read_json(written, Profile)
    if as_json:
        click.echo(written.read_text(encoding="utf-8").rstrip())
    else:
        _show_scenarios(profile)
        click.echo(written)
        if values["layers"]:
            _show_where_time_goes(profile)
    _judge(profile, None, values["strict"])


def _show(profile: Profile, as_json: bool) -> None:
    from edgetl.report.profile_lines import profile_lines

    if as_json:
        click.echo(profile.model_dump_json(indent=1))
        return
    for line in profile_lines(profile):
        click.echo(line)
    _show_where_time_goes(profile)
    _show_scenarios(profile)


def _show_loaded(profiles: Mapping[str, Profile], as_json: bool) -> None:
    """Print one profile as if it had just been measured, or several side by side."""
    if len(profiles) == 1:
        _show(next(iter(profiles.values())), as_json)
        return
    from edgetl.report.profile_lines import profiles_json
    from edgetl.report.terminal import loaded_table

    if as_json:
        click.echo(profiles_json([*profiles.values()]))
    else:
        echo(loaded_table(profiles))


def _show_where_time_goes(profile: Profile) -> None:
    from edgetl.report.time_breakdown import where_time_goes

    echo(*where_time_goes(profile))


def _show_scenarios(profile: Profile) -> None:
    if not profile.scenarios:
        return
    from edgetl.report.scenario_tables import render_scenarios

    echo("", *render_scenarios(profile.scenarios))


def _judge(profile: Profile, limit: float | None, strict: bool) -> None:
    from edgetl.report.profile_lines import check_gate

    check_gate(profile, limit, strict, TerminalReporter().message)
