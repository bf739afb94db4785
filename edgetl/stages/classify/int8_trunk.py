"""The frozen trunk in INT8, for heads that are to learn from what it will hand them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.bundle import FEATURES, TOP, TRUNK, Bundle, Head, Int8Training, Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.files import read_json, sha256_bytes
from edgetl.artifacts.index import Sample
from edgetl.config import load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.images import Pixels
from edgetl.data.stream import to_input
from edgetl.engine.runtime import get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.compose import compose
from edgetl.graph.extract import extract
from edgetl.graph.fusion.fuse import fuse
from edgetl.graph.model import model_bytes
from edgetl.graph.parity import Reference
from edgetl.graph.quantise import quantise
from edgetl.stages.observing import Calibration
from edgetl.stages.stage import Context

Array = npt.NDArray[np.float32]

_PROBE = "probe"


def int8_training(context: Context) -> Int8Training | None:
    """What heads are to be trained for; None where the study does not ask for it."""
    if not context.study.training.quantization_aware:
        return None
    recipe = load_recipe(context.study.calibration, context.beside)
    return Int8Training(spelling=get_runtime(context.runtime).SPELLING, recipe=recipe)


@dataclass(frozen=True)
class Int8Trunk:
    """``graph`` goes from images to the features, with the ranges of ``table``."""

    graph: onnx.ModelProto
    table: CalibrationTable

    @property
    def cut(self) -> str:
        """Where its features are taken, as it stands in the cache's keys: other scales make other features."""
        return f"{TOP} in INT8 ({sha256_bytes(model_bytes(self.graph))[:12]})"

    def features(self) -> Reference:
        """On ONNX Runtime's exact kernels, whatever the machine."""
        return Reference(self.graph, threads=1)  # the stream's threads are as many as there are cores


def extract_with(reference: Reference, images: Pixels) -> Array:
    """Features, n x D, of n x H x W x 3 uint8."""
    features: Array = reference.run(to_input(images))[FEATURES]
    return features


def int8_trunk(
    context: Context,
    wanted: Int8Training,
    train: Sequence[Sample],
    root: Path,
    preprocessing: Preprocessing,
    trunk: onnx.ModelProto,
) -> Int8Trunk:
    """Calibrate the trunk as `export` will, and write it in INT8 as it will stand under the heads.

    Args:
        trunk: from images to features.
    """
    whole = _with_a_head(fuse({TRUNK: trunk}).model, preprocessing)
    calibration = Calibration(
        samples=draw(train, wanted.recipe),
        root=root,
        preprocessing=preprocessing,
        recipe=wanted.recipe,
        watcher=context.watcher,
        searched=partial(extract, outputs=[FEATURES]),
    )
    _, tables = calibration.tables(whole, wanted.spelling)
    return Int8Trunk(extract(quantise(whole, tables[0], wanted.spelling), [FEATURES]), tables[0])


def _with_a_head(trunk: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Without a head, a trunk that ends in a matrix product would have its head there: the last one is not INT8."""
    figures = {"regularisation": 0.0, "temperature": 1.0, "val_loss": 0.0, "val_accuracy": 0.0}
    head = Head(name=_PROBE, classes=("a", "b"), activation="softmax", **figures)
    width = trunk.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    zeros = {f"{_PROBE}.weight": np.zeros((2, width), np.float32), f"{_PROBE}.bias": np.zeros(2, np.float32)}
    return compose(trunk, [head], zeros, preprocessing)


def trained_table(context: Context, bundle: Bundle) -> CalibrationTable | None:
    """The ranges that heads were trained with; None where they were not trained for INT8.

    Raises:
        EdgetlError: the study asks for what the heads were not trained for.
    """
    wanted, trained = int8_training(context), bundle.int8
    if wanted is not None and trained is None:
        raise EdgetlError(
            f"the heads in {context.run.bundle} were not trained for INT8, and the study says quantization_aware; run "
            "edgetl finetune again"
        )
    if trained is None:
        return None
    if trained.recipe != load_recipe(context.study.calibration, context.beside):
        raise EdgetlError(
            f"the heads in {context.run.bundle} were trained for INT8 by another calibration than "
            f"{context.study.calibration} is now; run edgetl finetune again"
        )
    return read_json(context.run.bundle / "calibration.json", CalibrationTable)
