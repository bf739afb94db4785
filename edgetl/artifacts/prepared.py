"""The record of a prepared graph, and the comparison of two graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.files import Artifact, read_json
from edgetl.errors import EdgetlError


class LayerDifference(Artifact):
    """A layer that both graphs have, named by the tensor it makes. ``snr_db``: signal-to-noise of b's against a's."""

    layer: str
    op: str
    snr_db: float


class OutputDifference(Artifact):
    """An output of both graphs. ``snr_db`` and ``max_abs_difference`` are None where its shape depends on values.

    ``top1_agreement``: the fraction of images that get the same class; None where the output gives no classes.
    """

    output: str
    snr_db: float | None
    max_abs_difference: float | None
    top1_agreement: float | None


class ImageDifference(Artifact):
    image: str
    snr_db: float


class GraphComparison(Artifact):
    """Two graphs on the same images: layers in the order of the graph, images the worst first."""

    schema_version: Literal[1] = 1
    a: str
    b: str
    images: int
    layers: tuple[LayerDifference, ...]
    outputs: tuple[OutputDifference, ...]
    worst_images: tuple[ImageDifference, ...]


class PreparedRecord(Artifact):
    """The record of a prepared graph. ``graph_sha256`` is that of the original file.

    ``preprocessing``: how images became its input. ``excluded``: the reason for each layer that is not in the
    precision, by the tensor it makes. ``parity``: the comparison with the original, on calibration images, or on random
    ones without any (``parity_on``).
    """

    schema_version: Literal[2] = 2
    graph: str
    graph_sha256: str
    prepared_sha256: str
    precision: Literal["fp16", "int8"]
    target: Literal["tensorrt", "onnxruntime"] | None
    preprocessing: Preprocessing
    excluded: dict[str, str]
    parity_on: Literal["calibration images", "random images"]
    parity: GraphComparison
    accuracy_control: AccuracyControlResult | None
    calibration: CalibrationTable | None


def record_path(prepared: Path) -> Path:
    return prepared.with_name(prepared.name + ".json")


def is_prepared(graph: Path) -> bool:
    """Whether a graph has the record of a prepared graph."""
    # That the file is there says nothing: an engine that is an ONNX file has its manifest under the same name.
    try:
        read_json(record_path(graph), PreparedRecord)
    except EdgetlError:
        return False
    return True
