from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetl.commands.options import CommandOptions, argument, make_command, option, part

if TYPE_CHECKING:
    from edgetl.artifacts.data_index import BrokenFile
    from edgetl.artifacts.predictions import Prediction


class _PredictOptions(CommandOptions):
    model: Path = argument("MODEL.onnx")
    sources: tuple[Path, ...] = argument("IMAGE|FOLDER|VIDEO...")
    output: Path | None = option("Folder for pictures with boxes and labels.", "-o", "--output")
    score_threshold: float | None = option(
        "Leave out boxes that score less.",
        type=click.FloatRange(0.0, 1.0),
        show_default="0.25, or the model's own if that is higher",
    )
    top: int = option("Labels of a classifier to give.", type=click.IntRange(1), default=5)
    as_json: bool = option("Print JSON: one document, or with a video one on each line.", "--json")


@make_command("predict", _PredictOptions)
def command(options: _PredictOptions) -> None:
    """Print the labels or boxes of images, or draw them.

    Boxes are left, top, right and bottom in pixels of the image. Files that cannot be read are named on stderr.

    \b
    Examples:  edgetl predict detector.onnx dog.jpg -o drawn
               edgetl predict classifier.onnx photos --top 1 --json
    """
    from edgetl.artifacts.data_index import BrokenFile
    from edgetl.data.video import is_video
    from edgetl.stages.predict_files import PredictRequest, predict

    results = predict(PredictRequest(**part(options, PredictRequest)))
    # One document needs all results at once; of a video they could fill the memory.
    if options.as_json and not any(is_video(source) for source in options.sources):
        _print_document(options.model, results)
        return
    for result in results:
        if isinstance(result, BrokenFile):
            _warn(result)
        else:
            click.echo(result.model_dump_json(exclude_none=True) if options.as_json else "\n".join(_lines(result)))


def _print_document(model: Path, results: Iterable[Prediction | BrokenFile]) -> None:
    from edgetl.artifacts.predictions import Prediction, Predictions

    images, broken = [], []
    for result in results:
        if isinstance(result, Prediction):
            images.append(result)
        else:
            broken.append(result)
            _warn(result)
    document = Predictions(model=str(model), images=tuple(images), broken=tuple(broken))
    click.echo(document.model_dump_json(indent=1, exclude_none=True))


def _warn(broken: BrokenFile) -> None:
    click.echo(f"{broken.path} is left out: {broken.reason}", err=True)


def _lines(prediction: Prediction) -> Iterable[str]:
    frame = "" if prediction.frame is None else f" frame {prediction.frame} ({prediction.seconds:.3f} s)"
    yield f"{prediction.path}{frame}: {prediction.width} x {prediction.height}"
    for detection in prediction.detections or ():
        corners = " ".join(f"{edge:.1f}" for edge in detection.xyxy)
        yield f"  {detection.score:.3f}  {detection.label}  {corners}"
    if prediction.detections == ():  # None where the model does not detect
        yield "  nothing found"
    several = len({guess.head for guess in prediction.labels or ()}) > 1
    for guess in prediction.labels or ():
        yield f"  {guess.probability:.3f}  {f'{guess.head}: ' if several else ''}{guess.label}"
