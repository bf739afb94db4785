from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, provider_option, run_study, seconds_option, threads_option

if TYPE_CHECKING:
    from edgetl.artifacts.results import Profile


@click.command("profile")
@click.argument("sources", metavar="STUDY.yaml|MODEL.onnx|FILE.engine...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, help="A study's run directory.")
@click.option("--against", type=PATH, help="One more model, to compare with.")
@provider_option
@threads_option
@seconds_option
@click.option("--cuda-graph", is_flag=True, help="Run FILE.engine as a CUDA graph, checked against the plain run.")
@click.option("--trust", is_flag=True, help="Load FILE.engine though it is not what its manifest speaks of.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures in the shape of results.json.")
def command(
    sources: tuple[Path, ...],
    output: Path | None,
    against: Path | None,
    provider: str,
    threads: int,
    seconds: float,
    cuda_graph: bool,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure the latency of every deployment, or of ONNX files and engines, side by side.

    All candidates are timed in interleaved rounds in one process; ratios are taken round by round.

    \b
    Examples:  edgetl profile configs/digits.yaml -o runs/digits --threads 1
               edgetl profile new.onnx --against old.onnx
    """
    if sources[0].suffix in {".onnx", ".engine"}:
        if output is not None:
            raise click.UsageError("-o is for a study; the figures of models are printed, with --json for programs")
        if provider != "cpu":
            raise click.UsageError("--provider is for a study; ONNX files are measured on the CPU")
        from edgetl.stages.files import profile_files

        models = [*sources, *([against] if against else [])]
        _show(profile_files(models, threads, seconds, trust, cuda_graph), as_json)
        return
    if len(sources) > 1 or against:
        raise click.UsageError("give one STUDY.yaml with -o DIR, or MODEL.onnx files; --against is for models")
    if cuda_graph or trust:
        raise click.UsageError("--cuda-graph and --trust are for FILE.engine")
    if output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    from edgetl.stages.stage import Options

    run_study(sources[0], output, ["profile"], Options(threads=threads, seconds=seconds, provider=provider))
    written = output / "measurements" / "latency.json"
    click.echo(written.read_text(encoding="utf-8").rstrip() if as_json else written)


def _show(profile: Profile, as_json: bool) -> None:
    if as_json:
        click.echo(profile.model_dump_json(indent=1))
        return
    for row in profile.deployments:
        latency = row.latency_ms
        assert latency is not None, "plain files are always measured"
        mark = "" if latency.stable else f"  UNSTABLE: {latency.why_unstable}"
        interval = f"{latency.low:.3f} to {latency.high:.3f}"
        click.echo(f"{row.name}: p50 {latency.p50:.3f} ms ({interval}), p99 {latency.p99:.3f} ms{mark}")
    for pair in profile.comparisons:
        click.echo(f"{pair.a} takes {pair.ratio:.3f} times as long as {pair.b} ({pair.low:.3f} to {pair.high:.3f})")
