"""The note beside a prepared graph: what it was made from and how, and how far it is from that."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.comparison import GraphComparison
from edgetl.artifacts.files import Artifact, read_json
from edgetl.artifacts.guard import Guard
from edgetl.errors import EdgetlError


class Prepared(Artifact):
    """What a graph was prepared from and how. ``graph_sha256`` is that of the original file.

    ``preprocessing``: how images became its input. ``kept``: layers that are not in the precision, by the tensor they
    make, each with the reason. ``parity``: against the original, on calibration images, or on random ones where none
    were given (``parity_on``).
    """

    schema_version: Literal[1] = 1
    graph: str
    graph_sha256: str
    prepared_sha256: str
    precision: Literal["fp16", "int8"]
    target: Literal["tensorrt", "onnxruntime"] | None
    preprocessing: Preprocessing
    kept: dict[str, str]
    parity_on: Literal["calibration images", "random images"]
    parity: GraphComparison
    guard: Guard | None
    calibration: CalibrationTable | None


def record_path(prepared: Path) -> Path:
    return prepared.with_name(prepared.name + ".json")


def is_prepared(graph: Path) -> bool:
    """Whether what lies beside a file says how it was prepared: the manifest of an engine has the same name."""
    try:
        read_json(record_path(graph), Prepared)
    except EdgetlError:
        return False
    return True
