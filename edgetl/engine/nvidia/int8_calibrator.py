"""INT8 scales from a calibration cache, for DLA cores up to TensorRT 10: they take no Q/DQ nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts.files import read_bytes
from edgetl.errors import EdgetlError

_FIRST_LINE = b"TRT-"


def read_cache(path: Path) -> bytes:
    """Read a calibration cache: ``TRT-<version>-EntropyCalibration2``, then ``name: <scale in hex>`` for each tensor.

    Raises:
        EdgetlError: the file is missing or is no calibration cache.
    """
    content = read_bytes(path)
    if not content.startswith(_FIRST_LINE) or b"EntropyCalibration2" not in content.partition(b"\n")[0]:
        raise EdgetlError(
            f"{path} is no calibration cache: its first line is not TRT-<version>-EntropyCalibration2; write one with "
            "edgetl prepare"
        )
    return content


def make_calibrator(trt: Any, cache: bytes) -> Any:
    """A calibrator that gives TensorRT a cache and never runs a batch."""

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]  # the bindings have no types
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            """Return None, which ends calibration: nothing has to run."""

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: bytes) -> None:
            """Write nothing: TensorRT would write what it has just read."""

    return Calibrator()
