from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.study_command import PATH, TerminalReporter, run_study

if TYPE_CHECKING:
    from edgetl.artifacts.predictions import NmsImplementation
    from edgetl.config import Fit


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    del context, parameter
    if value is None:
        return None
    # Not \d, which takes the digits of every script; the study's own limits come later.
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is neither a side such as 416 nor WIDTHxHEIGHT such as 640x384")
    return int(found[1]), int(found[2] or found[1])


@click.command("export")
@click.argument("source", metavar="STUDY.yaml|NETWORK.cfg", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="A study's run directory, or the ONNX file to write.")
@click.option("--weights", type=PATH, help="The .weights file of a Darknet network.")
@click.option("--labels", type=PATH, help="Its names: a file with one on every line.")
@click.option(
    "--nms",
    type=click.Choice(["operator", "loop", "none"]),
    show_default="operator",
    help="How overlapping boxes are suppressed: by ONNX's operator, by a loop for TensorRT-RTX, or not.",
)
@click.option("--image-size", metavar="S|WxH", callback=_size, show_default="the cfg's", help="The network's input.")
@click.option(
    "--fit",
    type=click.Choice(["letterbox", "stretch", "crop"]),
    show_default="letterbox for a detector, crop for a classifier",
    help="How images become the network's input.",
)
@click.option(
    "--score-threshold", type=click.FloatRange(0, 1, max_open=True), show_default="0.01", help="Drop lower boxes."
)
@click.option(
    "--iou-threshold",
    type=click.FloatRange(0, 1, min_open=True),
    show_default="0.45",
    help="Intersection over union above which the lower of two boxes is dropped.",
)
@click.option("--max-detections", type=click.IntRange(1, 1000), show_default="100", help="The most boxes for an image.")
def command(
    source: Path,
    output: Path,
    weights: Path | None,
    labels: Path | None,
    nms: NmsImplementation | None,
    image_size: tuple[int, int] | None,
    fit: Fit | None,
    score_threshold: float | None,
    iou_threshold: float | None,
    max_detections: int | None,
) -> None:
    """Write ONNX graphs: a study's, prepared in every precision, or that of a Darknet network.

    Each graph is checked against PyTorch, a study's on real images; INT8 is calibrated on images drawn from train. The
    graph of a detector returns boxes after suppression.

    \b
    Examples:  edgetl export configs/digits.yaml -o runs/digits
               edgetl export yolov3.cfg --weights yolov3.weights --labels coco.names -o m.onnx
    """
    chosen: dict[str, float | None] = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    chosen = {key: value for key, value in (chosen | {"max_detections": max_detections}).items() if value is not None}
    if source.suffix != ".cfg":
        if any(value is not None for value in (weights, labels, nms, image_size, fit)) or chosen:
            raise click.UsageError("-o is the only option for a study; the others are for a Darknet NETWORK.cfg")
        run_study(source, output, ["export"])
        click.echo(output / "graphs")
        return
    if weights is None or labels is None:
        raise click.UsageError("a Darknet network needs --weights and --labels")
    if nms == "none" and chosen:
        raise click.UsageError("--score-threshold, --iou-threshold and --max-detections are for --nms operator or loop")
    from edgetl.config import NmsSettings
    from edgetl.errors import MissingExtraError

    try:  # it imports torch, which the core package does without
        from edgetl.stages.export_darknet import DarknetExportRequest, export_darknet
    except ModuleNotFoundError as error:
        raise MissingExtraError("edgetl export", "train", error) from error
    settings = NmsSettings.model_validate(chosen)
    request = DarknetExportRequest(source, weights, labels, output, image_size, fit, nms or "operator", settings)
    export_darknet(request, TerminalReporter())
    click.echo(output)
