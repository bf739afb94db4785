"""A study's graphs in every precision: calibrated once on training images, spelled for each runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationImage, CalibrationTable
from edgetl.artifacts.files import write_json
from edgetl.config import load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import calibrate, quantisable_tensors
from edgetl.graph.half import to_fp16
from edgetl.graph.placement import Target
from edgetl.graph.quantise import quantise
from edgetl.stages.stage import Context

Array = npt.NDArray[np.float32]


def calibrated(
    context: Context,
    samples: Sequence[File],
    root: Path,
    preprocessing: Preprocessing,
    whole: onnx.ModelProto,
    each: Iterable[onnx.ModelProto],
) -> tuple[CalibrationTable, Path]:
    """One range per tensor for all graphs, from training images drawn by seed; and the file it is written to.

    Args:
        samples: the training images.
        whole: a graph that holds all of ``each``: tensors of one name hold the same in all of them.
    """
    recipe = load_recipe(context.study.calibration, context.beside)
    drawn = draw(samples, recipe)
    tensors = list(dict.fromkeys(name for model in each for name in quantisable_tensors(model)))
    with context.watcher.progress("calibration", len(drawn)) as advance:

        def batches() -> Iterator[Array]:
            for batch in stream(drawn, root, renderer(preprocessing), to_input):
                advance(len(batch.rows))
                yield batch.result

        images = tuple(CalibrationImage(path=sample.path, sha256=sample.sha256) for sample in drawn)
        table = calibrate(whole, batches(), recipe, images, tensors)
    path = context.run.graphs / "calibration.json"
    write_json(path, table)
    return table, path


def spelled(model: onnx.ModelProto, precision: str, table: CalibrationTable | None) -> dict[Target, onnx.ModelProto]:
    """A graph in a precision, for each runtime that wants it in its own spelling; in float both are the same."""
    if precision == "int8" and table is not None and quantisable_tensors(model):
        # Heads stay in float in every precision: what holds nothing but heads is the same in INT8.
        return {target: quantise(model, table, target) for target in get_args(Target)}
    return dict.fromkeys(get_args(Target), to_fp16(model) if precision == "fp16" else model)
