from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.engine_options import EngineOptions
from edgetl.commands.options import argument, make_command, option, part, refuse
from edgetl.commands.preprocessing_options import PreprocessingOptions
from edgetl.commands.shared_options import AccuracyOptions, ProviderOption
from edgetl.commands.study_command import TerminalReporter, run_study

if TYPE_CHECKING:
    from edgetl.stages.build_file import EngineRequest


class _BuildInt8Options(AccuracyOptions):
    calibration_images: Path | None = option("For INT8: folder of images like the real ones.")


class _BuildModelOptions(_BuildInt8Options, PreprocessingOptions, EngineOptions):
    """What a study names itself."""

    runtime: str = option(
        "What will run it.", type=click.Choice(["onnxruntime", "tensorrt", "tensorrt-rtx"]), default="onnxruntime"
    )
    precision: str | None = option(
        "Prepare the model in it.", type=click.Choice(["fp32", "fp16", "int8"]), show_default="as the model is"
    )


class _BuildEngineOptions(ProviderOption, _BuildModelOptions):
    source: Path = argument("STUDY.yaml|MODEL.onnx")
    output: Path | None = option("A study's run directory (required), or a model's engine file.", "-o", "--output")
    compute_capability: str | None = option("Build for this device, such as SM86 (tensorrt-rtx).", metavar="SMxx")


@make_command("build-engine", _BuildEngineOptions)
def command(options: _BuildEngineOptions) -> None:
    """Build engines for this machine, or one for another.

    An engine that is up to date (same graph, runtime, device and options) is not built again. A graph that is prepared
    already is built in its own precision: give no --precision. Options from --runtime on are for a MODEL.onnx.

    \b
    Examples:  edgetl build-engine configs/digits.yaml -o runs/digits
               edgetl build-engine m.onnx --runtime tensorrt-rtx --compute-capability SM86 --precision fp16
               edgetl build-engine m.fp16.onnx --print-trtexec 8.5
    """
    if options.source.suffix != ".onnx":
        _build_study(options)
        return
    if options.precision != "int8":
        refuse(_BuildInt8Options, "is for --precision int8")
    if options.precision not in {"fp16", "int8"}:
        refuse(PreprocessingOptions, "is for --precision fp16 and int8")
    if options.print_trtexec and options.precision:
        raise click.UsageError("trtexec is for a prepared graph: run edgetl prepare first and give no --precision")
    from edgetl.stages.build_file import build_file, trtexec_lines

    request = _request(options)
    if options.print_trtexec:
        click.echo("\n".join(trtexec_lines(request, options.print_trtexec)))
    else:
        click.echo(build_file(request, TerminalReporter()))


def _build_study(options: _BuildEngineOptions) -> None:
    if options.output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    refuse(EngineOptions, "is for a MODEL.onnx; a study file has the section engine")
    refuse(_BuildModelOptions, "is for a MODEL.onnx; a study names its own")
    from edgetl.stages.stage import Options

    run_study(options.source, options.output, ["build-engine"], Options(**part(options, Options)))
    click.echo(options.output / "engines")


def _request(options: _BuildEngineOptions) -> EngineRequest:
    from edgetl.engine.nvidia.timing_cache import cache_folder
    from edgetl.engine.runtime import get_runtime
    from edgetl.stages.build_file import EngineRequest
    from edgetl.stages.prepare_file import PrepareRequest
    from edgetl.stages.stage import with_provider

    runtime = with_provider(options.runtime, options.provider)
    preparation = PrepareRequest(
        options.precision or "fp32",
        get_runtime(runtime).QDQ_FORMAT,
        options.calibration_images,
        max_accuracy_drop=options.max_accuracy_drop,
        eval_images=options.eval_images,
        contract=options.contract(),
    )
    return EngineRequest(
        options.source,
        options.output,
        runtime,
        options.build_options(),
        preparation,
        options.calibration_cache,
        options.timing_cache or cache_folder(),
    )
