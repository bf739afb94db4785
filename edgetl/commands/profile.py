from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.options import CommandOptions, argument, make_command, option, part, refuse
from edgetl.commands.shared_options import (
    GateOptions,
    JudgingOptions,
    MeasuringOptions,
    ModelRunOptions,
    ProviderOption,
)
from edgetl.commands.show_profile import judge, show, show_scenarios, show_where_time_goes
from edgetl.commands.study_command import TerminalReporter, run_study, study_and_run

if TYPE_CHECKING:
    from edgetl.artifacts.measurements import ScenarioName
    from edgetl.stages.profile_files import ProfileRequest
    from edgetl.stages.scenario_request import ScenarioRequest


class _ScenarioOptions(CommandOptions):
    loads: tuple[ScenarioName, ...] = option(
        "Measure under a load too. Repeatable.",
        "--scenario",
        type=click.Choice(["single-stream", "multi-stream", "offline", "cadence", "concurrent"]),
    )
    rates: tuple[str, ...] = option(
        "For cadence: how many times a second a group's engine, or a file, runs. Repeatable.",
        "--rate",
        metavar="NAME=HZ",
    )
    query_size: int = option("Images of a query of multi-stream.", type=click.IntRange(1), default=8)
    streams: int = option("Batches at once, of offline.", type=click.IntRange(1), default=1)

    def scenario_request(self, batch: int) -> ScenarioRequest:
        """The scenarios that the options ask for, each once, in the order in which they were given."""
        if self.rates and "cadence" not in self.loads:
            raise click.UsageError("--rate is for --scenario cadence")
        from edgetl.stages.scenario_request import ScenarioRequest, read_rates

        scenarios = tuple(dict.fromkeys(self.loads))
        return ScenarioRequest(scenarios, read_rates(self.rates), self.query_size, batch, self.streams)


class _ProfileModelOptions(GateOptions, ModelRunOptions):
    """What a study names itself, or has no use for."""

    runtime_cache: Path | None = option("Folder of what TensorRT-RTX compiles.", show_default="~/.cache/edgetl")
    images: Path | None = option("Folder: time every step from its images to MODEL.onnx's results.")
    trust: bool = option("Load a FILE.engine that is not the file that its manifest describes.")


class _ProfileOptions(ProviderOption, MeasuringOptions, _ScenarioOptions, JudgingOptions, _ProfileModelOptions):
    sources: tuple[Path, ...] = argument("STUDY.yaml|MODEL.onnx|FILE.engine...")
    output: Path | None = option("A study's run directory; a folder for the figures of files.", "-o", "--output")


@make_command("profile", _ProfileOptions)
def command(options: _ProfileOptions) -> None:
    """Measure the latency of every deployment, or of ONNX files and engines, side by side.

    All candidates are timed in interleaved rounds in one process; ratios are taken round by round.

    edgetl profile-remote measures on other machines, edgetl estimate tells what to expect of one that is not at hand,
    edgetl compare-profiles shows saved profiles side by side.

    \b
    Examples:  edgetl profile configs/digits.yaml -o runs/digits --threads 1
               edgetl profile new.onnx --against old.onnx --fail-if-slower 5%
               edgetl profile model.onnx --layers --images photos
               edgetl profile signs.onnx people.onnx --scenario cadence --rate signs=5 --rate people=30
    """
    if options.sources[0].suffix not in {".onnx", ".engine"}:
        _profile_study(options)
        return
    if options.provider != "cpu":
        raise click.UsageError("--provider is for a study; ONNX files are measured on the CPU")
    from edgetl.stages.profile_files import profile_files

    profile = profile_files(_request(options), TerminalReporter())
    show(profile, options.as_json)
    judge(profile, options, options.fail_if_slower)


def _request(options: _ProfileOptions) -> ProfileRequest:
    from edgetl.engine.nvidia.timing_cache import cache_folder
    from edgetl.engine.options import RunOptions
    from edgetl.stages.measuring import StoppingRule
    from edgetl.stages.profile_files import ProfileRequest, by_path

    limit = options.fail_if_slower
    return ProfileRequest(
        files=by_path(options.files(options.sources)),
        until=StoppingRule(options.seconds, options.width, None if limit is None else 1.0 + limit),
        run=RunOptions(
            **part(options, RunOptions),
            transfers=not options.no_transfers,
            scratch="profile" if options.share_scratch else None,  # any name: all files get the same
            runtime_caches=options.runtime_cache or cache_folder(),
        ),
        scenarios=options.scenario_request(options.batch),
        energy=not options.no_energy,
        **part(options, ProfileRequest),
    )


def _profile_study(options: _ProfileOptions) -> None:
    study, run = study_and_run(options.sources, options.output)
    # A batch has a use there: that of offline.
    offline = "offline" in options.loads
    refuse(_ProfileModelOptions, "is for models, MODEL.onnx or FILE.engine", but=["--batch"] if offline else [])
    from edgetl.artifacts.files import read_json
    from edgetl.artifacts.results import Profile
    from edgetl.stages.stage import Options

    settings = Options(
        interval_width=options.width,
        energy=not options.no_energy,
        scenarios=options.scenario_request(options.batch),
        **part(options, Options),
    )
    run_study(study, run, ["profile"], settings)
    # The file is read again and not the context: an up-to-date stage measured nothing in this process.
    written = run / "measurements" / "latency.json"
    profile = read_json(written, Profile)
    if options.as_json:
        click.echo(written.read_text(encoding="utf-8").rstrip())
    else:
        show_scenarios(profile)
        click.echo(written)
        if options.layers:
            show_where_time_goes(profile)
    judge(profile, options)
