"""Calibration in one call, on images that a test holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.artifacts.calibration_table import CalibrationImage, CalibrationTable
from edgetl.config import CalibrationRecipe
from edgetl.graph.calibrate import ranked_tables, watched
from edgetl.graph.observe import Observer, quantisable_tensors


def calibrate(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    recipe: CalibrationRecipe,
    images: tuple[CalibrationImage, ...],
    tensors: Sequence[str] | None = None,
) -> CalibrationTable:
    """The best table of a recipe for a graph that was shown these batches, which hold ``images``."""
    observer = Observer(model, watched(model, quantisable_tensors(model) if tensors is None else tensors, recipe))
    for batch in batches:
        observer.add(batch)
    return ranked_tables(model, observer.observation(len(images)), recipe, images)[0]
