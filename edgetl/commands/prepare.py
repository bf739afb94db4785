from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.options import CommandOptions, argument, make_command, option, part, refuse
from edgetl.commands.preprocessing_options import PreprocessingOptions
from edgetl.commands.shared_options import AccuracyOptions
from edgetl.commands.study_command import TerminalReporter


class _VersionOption(CommandOptions):
    tensorrt_version: str = option("The TensorRT that will read the calibration cache.", default="10.3.0")


class _CalibrationOptions(AccuracyOptions, _VersionOption):
    """INT8 whose scales are found on images."""

    calibration_images: Path | None = option("Folder of images like the real ones, or a text file that lists paths.")
    recipe: str = option("A recipe's name in calibration/, or its path.", default="default")
    calibration_cache: Path | None = option("Write the scales for TensorRT up to 10 and for DLA, too.")


class _PrepareInt8Options(_CalibrationOptions):
    target: str = option(
        "The QDQ format: each runtime is fast on its own only.",
        type=click.Choice(["tensorrt", "onnxruntime"]),
        default="tensorrt",
    )
    scales: Path | None = option("A calibration cache to take the scales from, in place of images.")


class _PrepareOptions(_PrepareInt8Options, PreprocessingOptions):
    model: Path = argument("MODEL.onnx")
    precision: str = option("The types and Q/DQ nodes to write.", type=click.Choice(["fp16", "int8"]))
    output: Path = option("The ONNX file to write; OUTPUT.json says how.", "-o", "--output")


@make_command("prepare", _PrepareOptions)
def command(options: _PrepareOptions) -> None:
    """Write one ONNX file in FP16 or INT8: the precision is in its types and Q/DQ nodes.

    FP16 keeps layers in FP32 that overflow on the images. INT8 with --max-accuracy-drop takes the best calibration
    method and variant (weights fitted, channels equalised), and excludes as few layers as possible.

    A file that edgetl wrote says how images become its input. Of another file, say it with --preprocessing.

    \b
    Examples:  edgetl prepare m.onnx --precision int8 --calibration-images photos -o m.int8.onnx
               edgetl prepare resnet.onnx --preprocessing imagenet --precision fp16 -o resnet.fp16.onnx
    """
    if options.precision == "fp16":
        # FP16 is tried on these images.
        why = "is for --precision int8; FP16 takes --calibration-images alone"
        refuse(_PrepareInt8Options, why, but=["--calibration-images"])
    if options.scales is not None:
        refuse(_CalibrationOptions, "needs images, and --scales takes their place")
    if options.calibration_cache is None:
        refuse(_VersionOption, "is for --calibration-cache")
    from edgetl.stages.prepare_file import PrepareRequest, prepare_file

    request = PrepareRequest(**part(options, PrepareRequest), contract=options.contract())
    prepare_file(options.model, options.output, request, TerminalReporter())
    click.echo(options.output)
