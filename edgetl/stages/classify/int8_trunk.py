"""The frozen trunk in INT8, so that heads and layers above a cut learn from the values that INT8 will give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import FEATURES, TRUNK, Bundle, ClassificationHead, Int8TrainingRecord, Preprocessing
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

_RANGE_IMAGES = 64
"""Training images on which the ranges of tuned layers are found anew after every epoch."""


def int8_training(context: Context) -> Int8TrainingRecord | None:
    """The QDQ format and the recipe that heads are to be trained for; None where the study does not ask for INT8."""
    if not context.study.training.quantization_aware:
        return None
    recipe = load_recipe(context.study.calibration, context.base_dir)
    return Int8TrainingRecord(qdq_format=get_runtime(context.runtime).QDQ_FORMAT, recipe=recipe)


@dataclass(frozen=True)
class Int8Part:
    """A graph in INT8 from images to one tensor: the features, or the maps at ``cut``."""

    cut: str
    graph: onnx.ModelProto

    def keyed_extractor(self) -> tuple[str, Callable[[Pixels], Float32Array]]:
        """The cut's key in the cache, and a function from n x H x W x 3 uint8 to n rows.

        ONNX Runtime's exact kernels compute them, so that every machine gets the same.
        """
        reference = Reference(self.graph, threads=1)  # the stream's threads are as many as there are cores

        def extract_rows(images: Pixels) -> Float32Array:
            (values,) = reference.run(to_input(images)).values()
            return values

        # With the graph's digest, because another calibration has other scales, and these make other values.
        return f"{self.cut} in INT8 ({sha256_bytes(model_bytes(self.graph))[:12]})", extract_rows


@dataclass(frozen=True)
class Int8Trunk:
    """The trunk from images to features: ``plain`` in float, and ``graph`` in INT8 with the ranges of ``table``."""

    plain: onnx.ModelProto
    graph: onnx.ModelProto
    table: CalibrationTable
    qdq_format: QdqFormat

    def below(self, cut: str, lower: onnx.ModelProto) -> Int8Part:
        """The INT8 trunk up to a cut; ``lower`` is the float graph up to there.

        Raises:
            EdgetlError: ``lower`` was exported so differently that it is no part of ``plain``.
        """
        # PyTorch numbers tensors anew in each export, so the cut's tensor is found by what it computes: fusing gives
        # it one name in both graphs. The second fusion tells what that tensor is called in the trunk alone.
        both = fuse({TRUNK: self.plain, cut: lower})
        (end,) = both.outputs[cut]
        names = fuse({TRUNK: self.plain}).tensors[TRUNK]
        ends = [names[old] for old, new in both.tensors[TRUNK].items() if new == end]
        if not ends:
            raise EdgetlError(
                f"the trunk's graph has no tensor for the cut {cut}, so its values there in INT8 are not to be had; "
                "choose another cut, or leave quantization_aware out"
            )
        return Int8Part(cut, extract(self.graph, ends[:1]))

    def tuning(self, maps: Float32Array) -> FakeQuantisation:
        """The rounding of layers above a cut while they are tuned on its maps, N x C x H x W of training images."""
        # Evenly spread, because indices are often sorted by label.
        spread = np.unique(np.linspace(0, len(maps) - 1, _RANGE_IMAGES).astype(np.int64))
        return FakeQuantisation(maps[spread], partial(_CalibratedGridFinder, self.table.method, self.qdq_format))

    def facts(self) -> list[object]:
        """Everything but the maps that decides how layers are rounded, as JSON can hold it."""
        return [self.qdq_format, self.table.method, _RANGE_IMAGES]


class _CalibratedGridFinder:
    """Finds the grid of a tensor from its histogram, as calibration does for a QDQ format."""

    def __init__(self, method: str, qdq_format: QdqFormat) -> None:
        self._method, self._qdq_format, self._histogram = method, qdq_format, Histogram()

    def add(self, values: Float32Array) -> None:
        self._histogram.add(values)

    def grid(self) -> Grid:
        step = activation_scale(tensor_range("", self._histogram, self._method), self._qdq_format)
        ends = np.iinfo(step.zero_point.dtype)
        return Grid(float(step.scale), int(step.zero_point), int(ends.min), int(ends.max))


def int8_trunk(
    context: Context,
    record: Int8TrainingRecord,
    train: Sequence[Sample],
    root: Path,
    preprocessing: Preprocessing,
    trunk: onnx.ModelProto,
) -> Int8Trunk:
    """Calibrate and quantise the trunk, a graph from images to features, as `export` will do it under the heads."""
    # The last matrix product of a graph may stay in float. A head of zeros is that product here; else a trunk that
    # ends in one (as some transformers do) would have its own last layer in float, unlike the trunk under real heads.
    whole = fuse({TRUNK: trunk}).model
    width = whole.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    figures = {"l2": 0.0, "temperature": 1.0, "val_loss": 0.0, "val_accuracy": 0.0}
    head = ClassificationHead(name="probe", classes=("a", "b"), activation="softmax", **figures)
    zeros = {"probe.weight": np.zeros((2, width), np.float32), "probe.bias": np.zeros(2, np.float32)}
    whole = compose(whole, [head], zeros, preprocessing)
    calibration = Calibrator(
        samples=draw(train, record.recipe),
        root=root,
        preprocessing=preprocessing,
        recipe=record.recipe,
        reporter=context.reporter,
        subgraph=partial(extract, outputs=[FEATURES]),
    )
    tables = calibration.tables(whole, calibration.observe(whole), record.qdq_format)
    # The first layer is in INT8 whatever it loses: heads learn from its error along with all others.
    table = tables[0].replaced(first=None)
    quantised = quantize(whole, table, record.qdq_format)
    return Int8Trunk(trunk, extract(quantised, [FEATURES]), table, record.qdq_format)


def trained_table(context: Context, bundle: Bundle) -> CalibrationTable | None:
    """The ranges of the frozen trunk that heads were trained with; None where they were not trained for INT8.

    Raises:
        EdgetlError: the study asks for INT8 training that the heads have not had, or names another recipe.
    """
    trained = bundle.int8
    if trained is None and int8_training(context) is not None:
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
