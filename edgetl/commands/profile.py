from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.profile_options import file_order, profile_options, refuse_in_study
from edgetl.commands.study_command import PATH, Terminal, run_study

if TYPE_CHECKING:
    from edgetl.artifacts.results import Profile


@click.command("profile")
@click.argument("sources", metavar="STUDY.yaml|MODEL.onnx|FILE.engine...", nargs=-1, type=PATH)
@profile_options
def command(sources: tuple[Path, ...], as_json: bool, **values: Any) -> None:
    """Measure the latency of every deployment, or of ONNX files and engines, side by side.

    All candidates are timed in interleaved rounds in one process; ratios are taken round by round.

    \b
    Examples:  edgetl profile configs/digits.yaml -o runs/digits --threads 1
               edgetl profile new.onnx --against old.onnx --fail-if-slower 5%
               edgetl profile model.onnx --layers --images photos
               edgetl profile --load nano.json --load orin.json
    """
    if values["load"]:
        if sources:
            raise click.UsageError("--load measures nothing; leave the models out")
        from edgetl.stages.reload import reload

        _show([reload(path) for path in values["load"]], as_json)
    elif not sources:
        raise click.UsageError("give a STUDY.yaml with -o DIR, models, or --load FILE")
    elif sources[0].suffix in {".onnx", ".engine"}:
        from edgetl.stages.profile_files import profile_files

        profile = profile_files(file_order(sources, values), Terminal())
        _show([profile], as_json)
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
        width=values["width"],
        provider=values["provider"],
        energy=not values["no_energy"],
        layers=values["layers"],
    )
    run_study(sources[0], output, ["profile"], options)
    written = output / "measurements" / "latency.json"
    profile = read_json(written, Profile)
    click.echo(written.read_text(encoding="utf-8").rstrip() if as_json else written)
    if values["layers"] and not as_json:
        from edgetl.report.shares import where_time_goes

        click.echo(where_time_goes([profile]), nl=False)
    _judge(profile, None, values["strict"])


def _show(profiles: Sequence[Profile], as_json: bool) -> None:
    from edgetl.report.profiled import profile_lines, profiles_json
    from edgetl.report.shares import where_time_goes

    if as_json:
        click.echo(profiles_json(profiles))
        return
    for line in profile_lines(profiles):
        click.echo(line)
    click.echo(where_time_goes(profiles), nl=False)


def _judge(profile: Profile, limit: float | None, strict: bool) -> None:
    from edgetl.report.profiled import judge

    judge(profile, limit, strict, Terminal().say)
