from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.study_command import PATH, Terminal, run_study


@click.command("build-engine")
@click.argument("source", metavar="STUDY.yaml|MODEL.onnx", type=PATH)
@click.option("-o", "--output", type=PATH, help="A study's run directory (required), or a model's engine file.")
@click.option("--compute-capability", metavar="SMxx", help="Build for this device, such as SM86 (tensorrt-rtx).")
@click.option(
    "--runtime", type=click.Choice(["onnxruntime", "tensorrt-rtx"]), help="For a model; a study names its own."
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="For a model; a study names its own.")
@click.option("--calibration-images", type=PATH, help="For a model in INT8: folder of images like the real ones.")
def command(
    source: Path,
    output: Path | None,
    compute_capability: str | None,
    runtime: str | None,
    precision: str | None,
    calibration_images: Path | None,
) -> None:
    """Build engines for this machine, or one for another.

    An engine that is up to date (same graph, runtime, device and options) is not built again.

    \b
    Examples:  edgetl build-engine configs/digits.yaml -o runs/digits
               edgetl build-engine m.onnx --runtime tensorrt-rtx --compute-capability SM86 --precision fp16
    """
    if source.suffix == ".onnx":
        _build_file(
            source, output, compute_capability, runtime or "onnxruntime", precision or "fp32", calibration_images
        )
        return
    if output is None:
        raise click.UsageError("a study needs -o DIR, its run directory")
    if runtime or precision or calibration_images:
        raise click.UsageError(
            "--runtime, --precision and --calibration-images are for a MODEL.onnx; a study names its own"
        )
    from edgetl.stages.stage import Options

    run_study(source, output, ["build-engine"], Options(compute_capability=compute_capability))
    click.echo(output / "engines")


def _build_file(
    graph: Path,
    output: Path | None,
    compute_capability: str | None,
    runtime: str,
    precision: str,
    calibration_images: Path | None,
) -> None:
    if calibration_images and precision != "int8":
        raise click.UsageError("--calibration-images is for --precision int8")
    from edgetl.engine.runtime import BuildOptions, get_runtime
    from edgetl.stages.files import EngineOrder, build_file
    from edgetl.stages.prepare import Preparation

    preparation = Preparation(precision, get_runtime(runtime).SPELLING, calibration_images)
    order = EngineOrder(graph, output, runtime, BuildOptions(compute_capability), preparation)
    click.echo(build_file(order, Terminal()))
