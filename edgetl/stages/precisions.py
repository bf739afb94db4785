"""A study's graphs in every precision: calibrated once on training images, spelled for each runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.files import write_json
from edgetl.config import Recipe, load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import ranked_tables
from edgetl.graph.half import to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.observe import quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.placement import Target, place
from edgetl.graph.quantise import quantise
from edgetl.stages.observing import observe
from edgetl.stages.stage import Context

_FP16_IMAGES = 16


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
    seen, images = observe(whole, drawn, root, preprocessing, context.watcher, tensors)
    table = ranked_tables(whole, seen, recipe, images)[0]
    path = context.run.graphs / "calibration.json"
    write_json(path, table)
    return table, path


def overflowing_in(
    context: Context, samples: Sequence[File], root: Path, preprocessing: Preprocessing, whole: onnx.ModelProto
) -> dict[str, str]:
    """What FP16 cannot hold of a study's graphs, told on a few training images; nothing where it has no FP16."""
    if "fp16" not in context.study.precisions:
        return {}
    batches = stream(draw(samples, Recipe(images=_FP16_IMAGES)), root, renderer(preprocessing), to_input)
    kept = overflowing(whole, np.concatenate([batch.result for batch in batches]))
    for name, reason in kept.items():
        context.watcher.say(f"export: {name} stays in FP32: {reason}, beyond what FP16 holds")
    return kept


def spelled(
    model: onnx.ModelProto, precision: str, table: CalibrationTable | None, float32: Collection[str] = ()
) -> dict[Target, onnx.ModelProto]:
    """A graph in a precision, for each runtime that wants it in its own spelling; in float both are the same.

    Args:
        float32: what FP16 cannot hold, by the tensor it makes.
    """
    if precision == "int8" and table is not None:
        # Heads stay in float in every precision: what holds nothing but heads is the same in INT8.
        able = {target: bool(place(Wiring(model.graph), target).layers) for target in get_args(Target)}
        return {target: quantise(model, table, target) if able[target] else model for target in get_args(Target)}
    return dict.fromkeys(get_args(Target), to_fp16(model, float32) if precision == "fp16" else model)
