from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, run_study, seconds_option, threads_option

if TYPE_CHECKING:
    from edgetl.stages.files import FileProfile


@click.command("profile")
@click.argument("sources", metavar="STUDY.yaml|MODEL.onnx...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="A study's run directory.")
@click.option("--against", type=PATH, help="One more model, to compare with.")
@threads_option
@seconds_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON (models only).")
def command(
    sources: tuple[Path, ...], output: Path | None, against: Path | None, threads: int, seconds: float, as_json: bool
) -> None:
    """Measure the latency of every deployment, or of ONNX files, side by side.

    All candidates are timed in interleaved rounds in one process; ratios are taken round by round.

    \b
    Examples:  edgetl profile configs/digits.yaml -o runs/digits --threads 1
               edgetl profile new.onnx --against old.onnx
    """
    if sources[0].suffix == ".onnx":
        from edgetl.stages.files import profile_files

        models = [*sources, *([against] if against else [])]
        _show(profile_files(models, threads, seconds), as_json)
        return
    if len(sources) > 1 or against or as_json:
        raise click.UsageError(
            "give one STUDY.yaml with -o DIR, or MODEL.onnx files; --against and --json are for models"
        )
    if output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    from edgetl.stages.stage import Options

    run_study(sources[0], output, ["profile"], Options(threads=threads, seconds=seconds))
    click.echo(output / "measurements" / "latency.json")


def _show(profile: FileProfile, as_json: bool) -> None:
    if as_json:
        latency = {name: one.model_dump() for name, one in profile.latency_ms.items()}
        pairs = [pair.model_dump() for pair in profile.comparisons]
        click.echo(json.dumps({"schema_version": 1, "latency_ms": latency, "comparisons": pairs}, indent=1))
        return
    for name, one in profile.latency_ms.items():
        mark = "" if one.stable else f"  UNSTABLE: {one.why_unstable}"
        click.echo(f"{name}: p50 {one.p50:.3f} ms ({one.low:.3f} to {one.high:.3f}), p99 {one.p99:.3f} ms{mark}")
    for pair in profile.comparisons:
        click.echo(f"{pair.a} takes {pair.ratio:.3f} times as long as {pair.b} ({pair.low:.3f} to {pair.high:.3f})")
