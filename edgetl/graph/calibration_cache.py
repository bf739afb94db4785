"""The calibration cache of TensorRT up to version 10 and of its DLA: one scale for each tensor, by name.

The first line is ``TRT-VERSION-EntropyCalibration2``, every other one is ``NAME: HEX``, where HEX is the scale
(amax / 127) as a big-endian float32. TensorRT runs no calibration batch when its calibrator returns these bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

import numpy as np
import onnx

from edgetl.artifacts.calibration_table import LEVELS, CalibrationTable, TensorRange
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import QdqFormat
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import float_tensors
from edgetl.graph.model import Wiring, model_bytes, real_inputs
from edgetl.graph.qdq_placement import never_negative, place_qdq, source

_METHOD = "calibration cache"
_HEADER = re.compile(r"TRT-\d+-\w*Calibrat\w+")


def cache_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all float tensors that depend on the images.

    Each needs a scale: without one TensorRT does not run a layer in INT8, and DLA does not run it at all.
    """
    wiring, floats = Wiring(model.graph), float_tensors(model)
    inputs = [value.name for value in real_inputs(model.graph)]
    return tuple(name for name in (*inputs, *wiring.producers) if name in floats and name not in wiring.constants)


def version_number(version: str) -> int:
    """The number that the first line states for a TensorRT version: 8602 for 8.6.2, 100300 for 10.3.0.

    Raises:
        EdgetlError: it is no version, or a version that reads no cache.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    major, minor, patch = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not 7 <= major <= 10:
        raise EdgetlError(
            f"TensorRT {version} reads no calibration cache; give a version from 7.0 to 10.16, such as 10.3.0 (later "
            "ones take the Q/DQ graph)"
        )
    # From version 10 on TensorRT counts majors in ten thousands, before in thousands.
    return major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch


def cache_text(model: onnx.ModelProto, table: CalibrationTable, version: str) -> str:
    """The text of the cache for a float graph, from a table with the ranges of all `cache_tensors`.

    The output of a node that only passes values on (MaxPool, Reshape) has its input's scale, as in the Q/DQ graph.

    Raises:
        EdgetlError: a tensor's name cannot be written, or the version reads no cache.
    """
    ranges, wiring = table.by_name(), Wiring(model.graph)
    lines = [f"TRT-{version_number(version)}-EntropyCalibration2"]
    for name in cache_tensors(model):
        if name != name.strip() or not name.isprintable():
            raise EdgetlError(f"tensor {name!r} cannot stand in a calibration cache; rename it")
        amax = ranges[source(wiring, name)].amax
        scale = np.float32(amax / LEVELS)
        # A tensor that is always 0 is exact at any scale, and a scale of 0 would divide by zero.
        lines.append(f"{name}: {struct.pack('>f', scale if scale > 0 else np.float32(1)).hex()}")
    return "\n".join(lines) + "\n"


def read_cache(content: bytes, where: str) -> dict[str, float]:
    """The scale of each tensor in a cache. Names may contain ``: ``, and numbers may lack leading zeros.

    Raises:
        EdgetlError: it is no calibration cache, or a line of it is damaged.
    """
    try:
        header, *lines = content.decode().splitlines()
    except (UnicodeDecodeError, ValueError):
        header, lines = "", []
    if not _HEADER.fullmatch(header.strip()):
        raise EdgetlError(
            f"{where} is no calibration cache: its first line is {header[:60]!r}, expected something like "
            "TRT-100300-EntropyCalibration2"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        name, separator, digits = line.rstrip().rpartition(": ")
        known = separator and name and re.fullmatch(r"[0-9a-fA-F]{1,8}", digits)
        scale = struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0] if known else np.nan
        if not (np.isfinite(scale) and scale > 0) or name in scales:
            raise EdgetlError(
                f"{where}, line {number}: {line[:80]!r} is not NAME: HEX with the float32 of a positive scale, each "
                "name once"
            )
        scales[name] = float(scale)
    return scales


def table_from_cache(
    model: onnx.ModelProto, scales: Mapping[str, float], target: QdqFormat, where: str
) -> CalibrationTable:
    """The calibration table with a cache's ranges: without histograms and without images.

    Raises:
        EdgetlError: the cache lacks a tensor that INT8 needs.
    """
    wiring = Wiring(model.graph)
    needed = dict.fromkeys(place_qdq(wiring, target).sources.values())
    missing = [name for name in needed if name not in scales]
    if missing:
        raise EdgetlError(
            f"{where} has no scale for {len(missing)} of {len(needed)} tensors, the first {missing[0]!r}; it belongs "
            "to another graph: calibrate this one with --calibration-images"
        )
    tensors = []
    for name in needed:
        amax = scales[name] * LEVELS
        # A cache has no sign: the other half of the range would be lost on an activation that is never negative.
        low = 0.0 if never_negative(wiring, name) else -amax
        ends = {"minimum": low, "maximum": amax, "low": low, "high": amax}
        tensors.append(TensorRange(name=name, method=_METHOD, **ends))
    return CalibrationTable(
        method=_METHOD,
        graph_sha256=sha256_bytes(model_bytes(model)),
        images=(),
        tensors=tuple(tensors),
    )
