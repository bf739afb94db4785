from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.console import echo
from edgetl.commands.options import CommandOptions, argument, make_command, option
from edgetl.commands.study_command import study_and_run

if TYPE_CHECKING:
    from edgetl.artifacts.measurements import DeviceEstimate
    from edgetl.config import Precision


class _EstimateOptions(CommandOptions):
    sources: tuple[Path, ...] = argument("STUDY.yaml|MODEL.onnx...")
    devices: tuple[str, ...] = option(
        "The Jetson, such as 'AGX Orin 64GB@30W'. Repeatable.", "--device", metavar="DEVICE[@MODE]", required=True
    )
    output: Path | None = option("A study's run directory.", "-o", "--output")
    precision: Precision | None = option(
        "As if models were prepared so.", type=click.Choice(["fp32", "fp16", "int8"]), show_default="as they are"
    )
    as_json: bool = option("Print the figures in the shape of results.json.", "--json")


@make_command("estimate", _EstimateOptions)
def command(options: _EstimateOptions) -> None:
    """Estimate the latency and memory of models on Jetsons that are not at hand.

    Nothing is measured: an interval is computed from each graph's FLOPs and bytes and the device's peaks.

    \b
    Examples:  edgetl estimate model.onnx --device "Orin Nano 8GB" --precision int8
               edgetl estimate configs/digits.yaml -o runs/digits --device Nano --device "Orin NX 16GB@25W"
    """
    from edgetl.artifacts.results import Profile
    from edgetl.report.terminal import estimate_table

    rows = _estimates(options)
    if options.as_json:
        empty = Profile(environment={}, deployments=(), comparisons=(), estimates=rows)
        click.echo(empty.model_dump_json(indent=1))
    else:
        echo(estimate_table(rows))


def _estimates(options: _EstimateOptions) -> tuple[DeviceEstimate, ...]:
    from edgetl.stages.estimate import estimate_files, estimate_study

    if options.sources[0].suffix == ".onnx":
        if options.output is not None:
            raise click.UsageError("-o is for a study; estimates of models are printed, with --json for programs")
        return estimate_files(options.sources, options.devices, options.precision)
    study, run = study_and_run(options.sources, options.output)
    if options.precision is not None:
        raise click.UsageError("--precision is for models; a study names its own")
    from edgetl.artifacts.run_directory import RunDirectory
    from edgetl.config import load_study

    return estimate_study(load_study(study), RunDirectory(run), options.devices)
