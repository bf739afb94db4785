"""Measures the time from an image's file to the answer, step by step, in the code that predicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.measurements import Waterfall
from edgetl.data.geometry import ImagePlacement, Size
from edgetl.data.images import BrokenImageError, check, fit, read, upright_size
from edgetl.data.paths import IMAGE_SUFFIXES, files_below
from edgetl.data.stream import to_input
from edgetl.data.views import decoded
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.waterfall import InferencePipeline, Stopwatch, measure_waterfall
from edgetl.stages.predictor import load_predictor
from edgetl.stages.serving import Loaded
from edgetl.stages.stage import Context
from edgetl.stages.tasks import task_of

_TOP = 5
_MOST_IMAGES = 32
_OF_A_STUDY = 16


@dataclass(frozen=True)
class _Decoded:
    """An image, its placement in the network's input, and its full size, which boxes refer to."""

    file: Path
    image: Image.Image
    place: ImagePlacement | None
    size: Size


@dataclass(frozen=True)
class _TimedEngine:
    """An engine under a stopwatch."""

    engine: Engine
    stopwatch: Stopwatch

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.engine.shapes

    def infer(self, *inputs: Float32Array) -> dict[str, Float32Array]:
        return self.stopwatch.watch(self.engine.infer)(*inputs)


def waterfall_of_model(model: Path, folder: Path, threads: int, seconds: float) -> Waterfall:
    """The waterfall of the steps of `edgetl predict`, image after image, over some images of a folder.

    Raises:
        EdgetlError: as `load_predictor` does, or the folder holds no image that can be read.
    """
    predictor, least = load_predictor(model, None, threads)
    stopwatch = Stopwatch()
    watched = replace(predictor, engine=_TimedEngine(predictor.engine, stopwatch))

    def preprocess(image: _Decoded) -> tuple[_Decoded, Float32Array]:
        return image, watched.to_input(fit(image.image, watched.preprocessing, image.place))

    def answer(ready: tuple[_Decoded, Float32Array]) -> object:
        image, tensor = ready
        outputs = watched.checked(watched.engine.infer(tensor))
        return watched.prediction(image.file, outputs, image.size, least, _TOP)

    way: InferencePipeline[Path, _Decoded, tuple[_Decoded, Float32Array]] = InferencePipeline(
        lambda file: _decode(file, watched.preprocessing), preprocess, answer, stopwatch
    )
    return measure_waterfall(way, _readable(folder), seconds)


def waterfalls_of_study(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], seconds: float
) -> dict[str, Waterfall]:
    """The waterfall of each deployment, by title, over some validation images; empty where these are not here."""
    task = task_of(context.study)
    files: list[Path] = []
    with suppress(EdgetlError):
        index, root = task.read_index(context)
        # Of the validation set: the test set is for `evaluate` alone.
        files = [file for one in index.val[:_OF_A_STUDY] if _can_be_read(file := root / one.path)]
    if not files:
        context.reporter.message(
            "profile: the study's images are not here, so the time from file to answer is not measured"
        )
        return {}
    preprocessing, serve, found = task.read_bundle(context).preprocessing, task.service(context), {}
    for title, (deployment, engines) in loaded.items():
        stopwatch = Stopwatch()
        watched = [replace(one, engine=_TimedEngine(one.engine, stopwatch)) for one in engines]
        way: InferencePipeline[Path, _Decoded, Float32Array] = InferencePipeline(
            lambda file: _decode(file, preprocessing),
            lambda image: to_input(fit(image.image, preprocessing, image.place)[None]),
            serve.predictor(deployment, watched),
            stopwatch,
        )
        found[title] = measure_waterfall(way, files, seconds, context.study.seed)
    return found


def _decode(file: Path, preprocessing: Preprocessing) -> _Decoded:
    content = read(file)
    return _Decoded(file, *decoded(content, preprocessing), upright_size(content))


def _readable(folder: Path) -> list[Path]:
    """Some readable images below a folder, spread over all of them."""
    if not folder.is_dir():
        raise EdgetlError(f"{folder} is not a folder; give a folder of images with --images")
    files = [file for file in files_below(folder) if file.suffix.lower() in IMAGE_SUFFIXES]
    spread = [files[number] for number in np.linspace(0, len(files) - 1, _MOST_IMAGES).astype(int)] if files else []
    readable = [file for file in dict.fromkeys(spread) if _can_be_read(file)]
    if not readable:
        raise EdgetlError(f"{folder} holds no images that can be read; expected files such as .jpg and .png")
    return readable


def _can_be_read(file: Path) -> bool:
    try:
        check(read(file))
    except (BrokenImageError, OSError):
        return False
    return True
