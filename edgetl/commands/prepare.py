from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.preprocessing_options import preprocessing_options, take_contract
from edgetl.commands.study_command import PATH, TerminalReporter

if TYPE_CHECKING:
    from edgetl.config import QdqFormat


@click.command("prepare")
@click.argument("model", type=PATH)
@click.option("--precision", required=True, type=click.Choice(["fp16", "int8"]))
@click.option("-o", "--output", required=True, type=PATH, help="The ONNX file to write; OUTPUT.json says how.")
@click.option(
    "--calibration-images", type=PATH, help="Folder of images like the real ones, or a text file that lists paths."
)
@click.option("--recipe", show_default="default", help="A recipe's name in calibration/, or its path.")
@click.option(
    "--target",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    show_default="tensorrt",
    help="The QDQ format: each runtime is fast on its own only.",
)
@click.option(
    "--max-accuracy-drop",
    type=click.FloatRange(0.0, 1.0),
    help="Exclude layers from INT8 until it loses no more accuracy than this: 0.01 is 1 %.",
)
@click.option(
    "--eval-images",
    type=PATH,
    help="Labelled images to measure accuracy on: folders by label; for a detector COCO's .json, YOLO's .yaml, or VOC.",
)
@click.option("--calibration-cache", type=PATH, help="Write the scales for TensorRT up to 10 and for DLA, too.")
@click.option("--tensorrt-version", show_default="10.3.0", help="The TensorRT that will read the calibration cache.")
@click.option("--scales", type=PATH, help="A calibration cache to take the scales from, in place of images.")
@preprocessing_options
def command(
    model: Path,
    precision: str,
    output: Path,
    calibration_images: Path | None,
    recipe: str | None,
    target: QdqFormat | None,
    max_accuracy_drop: float | None,
    eval_images: Path | None,
    calibration_cache: Path | None,
    tensorrt_version: str | None,
    scales: Path | None,
    **preprocessing: Any,
) -> None:
    """Write one ONNX file in FP16 or INT8: the precision is in its types and Q/DQ nodes.

    FP16 keeps layers in FP32 that overflow on the images. INT8 with --max-accuracy-drop takes the best calibration
    method and variant (weights fitted, channels equalised), and excludes as few layers as possible.

    A file that edgetl wrote says how images become its input. Of another file, say it with --preprocessing.

    \b
    Examples:  edgetl prepare m.onnx --precision int8 --calibration-images photos -o m.int8.onnx
               edgetl prepare resnet.onnx --preprocessing imagenet --precision fp16 -o resnet.fp16.onnx
    """
    # The defaults are set below, so that None shows which options the user did not give.
    for_int8 = (recipe, target, max_accuracy_drop, eval_images, calibration_cache, scales)
    if precision == "fp16" and any(value is not None for value in for_int8):
        raise click.UsageError("of the options on calibration and accuracy, FP16 takes --calibration-images alone")
    if (max_accuracy_drop is None) != (eval_images is None):
        raise click.UsageError("--max-accuracy-drop and --eval-images go together")
    if scales is not None and any((calibration_images, recipe, eval_images, calibration_cache)):
        raise click.UsageError("--scales takes the place of images and of the options that need them")
    if tensorrt_version is not None and calibration_cache is None:
        raise click.UsageError("--tensorrt-version is for --calibration-cache")
    from edgetl.stages.prepare_file import PrepareRequest, prepare_file

    int8 = (recipe or "default", max_accuracy_drop, eval_images, scales, calibration_cache)
    request = PrepareRequest(
        precision,
        target or "tensorrt",
        calibration_images,
        *int8,
        tensorrt_version or "10.3.0",
        take_contract(preprocessing),
    )
    prepare_file(model, output, request, TerminalReporter())
    click.echo(output)
