from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.engine_options import build_options, engine_options, given, timing_caches
from edgetl.commands.preprocessing_options import preprocessing_options, take_contract
from edgetl.commands.study_command import PATH, TerminalReporter, provider_option, run_study

if TYPE_CHECKING:
    from edgetl.config import InputContract

_RUNTIMES = ["onnxruntime", "tensorrt", "tensorrt-rtx"]


@click.command("build-engine")
@click.argument("source", metavar="STUDY.yaml|MODEL.onnx", type=PATH)
@click.option("-o", "--output", type=PATH, help="A study's run directory (required), or a model's engine file.")
@click.option("--compute-capability", metavar="SMxx", help="Build for this device, such as SM86 (tensorrt-rtx).")
@provider_option
# No default here: an option that the user did not give must not be refused for a study.
@click.option("--runtime", type=click.Choice(_RUNTIMES), help="For a model; a study names its own.")
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="For a model; a study names its own.")
@click.option("--calibration-images", type=PATH, help="For a model in INT8: folder of images like the real ones.")
@click.option("--max-accuracy-drop", type=click.FloatRange(0.0, 1.0), help="For a model in INT8; see prepare.")
@click.option("--eval-images", type=PATH, help="For --max-accuracy-drop: labelled images; see prepare.")
@preprocessing_options
@engine_options
def command(
    source: Path,
    output: Path | None,
    compute_capability: str | None,
    provider: str,
    runtime: str | None,
    precision: str | None,
    calibration_images: Path | None,
    max_accuracy_drop: float | None,
    eval_images: Path | None,
    **engine: Any,
) -> None:
    """Build engines for this machine, or one for another.

    An engine that is up to date (same graph, runtime, device and options) is not built again. A graph that is prepared
    already is built in its own precision: give no --precision. Options from --batches on are for a MODEL.onnx.

    \b
    Examples:  edgetl build-engine configs/digits.yaml -o runs/digits
               edgetl build-engine m.onnx --runtime tensorrt-rtx --compute-capability SM86 --precision fp16
               edgetl build-engine m.fp16.onnx --print-trtexec 8.5
    """
    contract = take_contract(engine)
    if source.suffix == ".onnx":
        accuracy = (calibration_images, max_accuracy_drop, eval_images)
        chosen = (runtime or "onnxruntime", provider, precision)
        _build_file(source, output, chosen, compute_capability, accuracy, contract, engine)
        return
    if output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    if runtime or precision or calibration_images or eval_images or max_accuracy_drop is not None or contract:
        raise click.UsageError(
            "--runtime, --precision and what belongs to it are for a MODEL.onnx; a study names its own"
        )
    if (option := given(engine)) is not None:
        raise click.UsageError(f"{option} is for a MODEL.onnx; a study file has the section engine")
    from edgetl.stages.stage import Options

    run_study(source, output, ["build-engine"], Options(compute_capability=compute_capability, provider=provider))
    click.echo(output / "engines")


def _build_file(
    graph: Path,
    output: Path | None,
    chosen: tuple[str, str, str | None],
    compute_capability: str | None,
    accuracy: tuple[Path | None, float | None, Path | None],
    contract: InputContract | None,
    engine: dict[str, Any],
) -> None:
    runtime, provider, precision = chosen
    calibration_images, max_accuracy_drop, eval_images = accuracy
    if any(value is not None for value in accuracy) and precision != "int8":
        raise click.UsageError("--calibration-images, --max-accuracy-drop and --eval-images are for --precision int8")
    if (max_accuracy_drop is None) != (eval_images is None):
        raise click.UsageError("--max-accuracy-drop and --eval-images go together")
    if contract is not None and precision not in {"fp16", "int8"}:
        raise click.UsageError("--preprocessing and its kin are for --precision fp16 and int8")
    if engine["print_trtexec"] and precision:
        raise click.UsageError("trtexec is for a prepared graph: run edgetl prepare first and give no --precision")
    from edgetl.engine.runtime import get_runtime
    from edgetl.stages.build_file import EngineRequest, build_file, trtexec_lines
    from edgetl.stages.prepare_file import PrepareRequest
    from edgetl.stages.stage import with_provider

    name = with_provider(runtime, provider)
    preparation = PrepareRequest(
        precision or "fp32",
        get_runtime(name).QDQ_FORMAT,
        calibration_images,
        max_accuracy_drop=max_accuracy_drop,
        eval_images=eval_images,
        contract=contract,
    )
    options, caches = build_options(engine, compute_capability), timing_caches(engine)
    request = EngineRequest(graph, output, name, options, preparation, engine["calibration_cache"], caches)
    if engine["print_trtexec"]:
        click.echo("\n".join(trtexec_lines(request, engine["print_trtexec"])))
    else:
        click.echo(build_file(request, TerminalReporter()))
