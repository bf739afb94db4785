from __future__ import annotations

import re
from pathlib import Path

import click

from edgetl.commands.options import CommandOptions, argument, make_command, option, part, refuse
from edgetl.commands.study_command import TerminalReporter


def _size(text: str) -> tuple[int, int]:
    # Not \d, which takes the digits of every script; the network's own limits come later.
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is neither a side such as 416 nor WIDTHxHEIGHT such as 640x384")
    return int(found[1]), int(found[2] or found[1])


class _NmsOptions(CommandOptions):
    """Which boxes are dropped; names and defaults as in `edgetl.config.NmsSettings`."""

    score_threshold: float = option("Drop lower boxes.", type=click.FloatRange(0, 1, max_open=True), default=0.01)
    iou_threshold: float = option(
        "Intersection over union above which the lower of two boxes is dropped.",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.45,
    )
    max_detections: int = option("The most boxes for an image.", type=click.IntRange(1, 1000), default=100)


class _ImportOptions(_NmsOptions):
    cfg: Path = argument("NETWORK.cfg")
    output: Path = option("The ONNX file to write.", "-o", "--output")
    weights: Path = option("The network's .weights file.")
    labels: Path = option("Its names: a file with one on every line.")
    image_size: tuple[int, int] | None = option(
        "The network's input.", metavar="S|WxH", type=_size, show_default="the cfg's"
    )
    fit: str | None = option(
        "How images become the network's input.",
        type=click.Choice(["letterbox", "stretch", "crop"]),
        show_default="letterbox for a detector, crop for a classifier",
    )
    nms: str = option(
        "How overlapping boxes are suppressed: by ONNX's operator, by a loop for TensorRT-RTX, or not.",
        type=click.Choice(["operator", "loop", "none"]),
        default="operator",
    )


@make_command("import-darknet", _ImportOptions)
def command(options: _ImportOptions) -> None:
    """Write a Darknet network as one ONNX file.

    The graph is checked against PyTorch on random images. That of a detector returns boxes after suppression.

    \b
    Example:  edgetl import-darknet yolov3.cfg --weights yolov3.weights --labels coco.names -o m.onnx
    """
    if options.nms == "none":
        refuse(_NmsOptions, "is for --nms operator or loop")
    from edgetl.config import NmsSettings
    from edgetl.errors import MissingExtraError

    try:  # it imports torch, which the core package does without
        from edgetl.stages.import_darknet import DarknetImportRequest, import_darknet
    except ModuleNotFoundError as error:
        raise MissingExtraError("edgetl import-darknet", "train", error) from error
    settings = NmsSettings(**part(options, _NmsOptions))
    request = DarknetImportRequest(**part(options, DarknetImportRequest), nms_settings=settings)
    import_darknet(request, TerminalReporter())
    click.echo(options.output)
