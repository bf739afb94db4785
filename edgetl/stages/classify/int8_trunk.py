"""The frozen trunk in INT8, for heads and layers above a cut that are to learn from what it will hand them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import FEATURES, TOP, TRUNK, Bundle, ClassificationHead, Int8TrainingRecord, Preprocessing
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import read_json, sha256_bytes
from edgetl.config import QdqFormat, load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.images import Pixels
from edgetl.data.stream import to_input
from edgetl.engine.runtime import get_runtime
from edgetl.errors import EdgetlError
from edgetl.graph.calibrate import tensor_range
from edgetl.graph.compose import compose
from edgetl.graph.extract import extract
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.histogram import Histogram
from edgetl.graph.model import model_bytes
from edgetl.graph.parity import Reference
from edgetl.graph.quantize import activation_scale, quantize
from edgetl.stages.calibrator import Calibrator
from edgetl.stages.stage import Context
from edgetl.train.fake_quantize import FakeQuantisation, Grid

_PROBE = "probe"

_WATCHED = 64
"""Training images on which the ranges of tuned layers are found after every epoch."""


def int8_training(context: Context) -> Int8TrainingRecord | None:
    """What heads are to be trained for; None where the study does not ask for it."""
    if not context.study.training.quantization_aware:
        return None
    recipe = load_recipe(context.study.calibration, context.base_dir)
    return Int8TrainingRecord(qdq_format=get_runtime(context.runtime).QDQ_FORMAT, recipe=recipe)


@dataclass(frozen=True)
class Int8Part:
    """A graph in INT8 from images to one tensor: the features, or the maps at ``cut``."""

    cut: str
    graph: onnx.ModelProto

    @property
    def key(self) -> str:
        """The cut, as it stands in the cache's keys: other scales make other values."""
        return f"{self.cut} in INT8 ({sha256_bytes(model_bytes(self.graph))[:12]})"

    def extractor(self) -> Callable[[Pixels], Float32Array]:
        """From n x H x W x 3 uint8 to n rows, on ONNX Runtime's exact kernels, whatever the machine."""
        reference = Reference(self.graph, threads=1)  # the stream's threads are as many as there are cores
        return partial(_extract_with, reference)


def _extract_with(reference: Reference, images: Pixels) -> Float32Array:
    (values,) = reference.run(to_input(images)).values()
    return values


@dataclass(frozen=True)
class Int8Trunk:
    """``plain`` goes from images to the features, and so does ``graph``, in INT8 with the ranges of ``table``."""

    plain: onnx.ModelProto
    graph: onnx.ModelProto
    table: CalibrationTable
    qdq_format: QdqFormat

    def top(self) -> Int8Part:
        return Int8Part(TOP, self.graph)

    def below(self, cut: str, lower: onnx.ModelProto) -> Int8Part:
        """The trunk up to a cut; ``lower`` is that part of ``plain``.

        Raises:
            EdgetlError: the two were exported so differently that the one is no part of the other.
        """
        both = fuse({TRUNK: self.plain, cut: lower})
        (end,) = both.outputs[cut]
        names = fuse({TRUNK: self.plain}).tensors[TRUNK]
        found = [names[old] for old, new in both.tensors[TRUNK].items() if new == end]
        if not found:
            raise EdgetlError(
                f"the graph of the whole trunk has no tensor for the cut {cut}, so what it is there in INT8 cannot be "
                "told; choose another cut, or leave quantization_aware out"
            )
        return Int8Part(cut, extract(self.graph, found[:1]))

    def tuning(self, maps: Float32Array) -> FakeQuantisation:
        """How layers above a cut are tuned on its maps (N x C x H x W of training images), for the same spelling."""
        spread = np.unique(np.linspace(0, len(maps) - 1, _WATCHED).astype(np.int64))
        return FakeQuantisation(maps[spread], partial(_CalibratedGridFinder, self.table.method, self.qdq_format))

    def facts(self) -> list[object]:
        """What decides how layers are tuned, beside their maps, as JSON can hold it."""
        return [self.qdq_format, self.table.method, _WATCHED]


class _CalibratedGridFinder:
    """Finds the grid of a tensor as calibration finds its range, and a spelling writes it."""

    def __init__(self, method: str, qdq_format: QdqFormat) -> None:
        self._method, self._spelling = method, qdq_format
        self._histogram = Histogram()

    def add(self, values: Float32Array) -> None:
        self._histogram.add(values)

    def grid(self) -> Grid:
        found = activation_scale(tensor_range("", self._histogram, self._method), self._spelling)
        ends = np.iinfo(found.zero_point.dtype)
        return Grid(float(found.scale), int(found.zero_point), int(ends.min), int(ends.max))


def int8_trunk(
    context: Context,
    wanted: Int8TrainingRecord,
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
    calibration = Calibrator(
        samples=draw(train, wanted.recipe),
        root=root,
        preprocessing=preprocessing,
        recipe=wanted.recipe,
        reporter=context.reporter,
        subgraph=partial(extract, outputs=[FEATURES]),
    )
    tables = calibration.tables(whole, calibration.observe(whole), wanted.qdq_format)
    table = tables[0].model_copy(update={"first": None})  # what the first layer loses is learned with all else
    quantised = quantize(whole, table, wanted.qdq_format)
    return Int8Trunk(trunk, extract(quantised, [FEATURES]), table, wanted.qdq_format)


def _with_a_head(trunk: onnx.ModelProto, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Without a head, a trunk that ends in a matrix product would have its head there: the last one is not INT8."""
    figures = {"l2": 0.0, "temperature": 1.0, "val_loss": 0.0, "val_accuracy": 0.0}
    head = ClassificationHead(name=_PROBE, classes=("a", "b"), activation="softmax", **figures)
    width = trunk.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    zeros = {f"{_PROBE}.weight": np.zeros((2, width), np.float32), f"{_PROBE}.bias": np.zeros(2, np.float32)}
    return compose(trunk, [head], zeros, preprocessing)


def trained_table(context: Context, bundle: Bundle) -> CalibrationTable | None:
    """The ranges of the frozen trunk that heads were trained with; None where they were not trained for INT8.

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
    if trained.recipe != load_recipe(context.study.calibration, context.base_dir):
        raise EdgetlError(
            f"the heads in {context.run.bundle} were trained for INT8 by another calibration than "
            f"{context.study.calibration} is now; run edgetl finetune again"
        )
    return read_json(context.run.bundle / "calibration.json", CalibrationTable)
