"""The calibration cache of TensorRT up to version 10 and of its DLA: one scale for each tensor, by name.

The first line is ``TRT-VERSION-EntropyCalibration2``, the others ``NAME: HEX``, the big-endian float32 of the scale
(amax / 127). A calibrator that returns this file's bytes never runs a batch.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from edgetl.artifacts.calibration_table import LEVELS, CalibrationTable, TensorRange
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import QdqFormat
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import float_tensors
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.qdq_placement import never_negative, place_qdq, source

_HEADER = re.compile(r"TRT-\d+-\w*Calibrat\w+")


def cache_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Every float tensor that varies: what has no scale, TensorRT does not run in INT8, and DLA not at all."""
    wiring, floats = Wiring(model.graph), float_tensors(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    return tuple(name for name in (*inputs, *wiring.producers) if name in floats and name not in wiring.constants)


def version_number(version: str) -> int:
    """How TensorRT writes its version in the first line: 8.6.2 is 8602, 10.3.0 is 100300.

    Raises:
        EdgetlError: it is no version, or one that reads no cache.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    major, minor, patch = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not 7 <= major <= 10:
        raise EdgetlError(
            f"TensorRT {version} reads no calibration cache; give a version from 7.0 to 10.16, such as 10.3.0 (later "
            "ones take the Q/DQ graph)"
        )
    return major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch


def cache_text(model: onnx.ModelProto, table: CalibrationTable, version: str) -> str:
    """The cache for a float graph, from a table that has all of `cache_tensors`.

    What only passes values on (MaxPool, Reshape) has the scale of what went in, as in the Q/DQ graph.

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
        lines.append(f"{name}: {struct.pack('>f', scale if scale > 0 else np.float32(1)).hex()}")
    return "\n".join(lines) + "\n"


def read_cache(content: bytes, where: str) -> dict[str, float]:
    """The scales in a cache, by tensor. Names may hold ``: ``; numbers may lack their leading zeros.

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
    return dict(_scales(lines, where))


def _scales(lines: list[str], where: str) -> Iterator[tuple[str, float]]:
    seen: set[str] = set()
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        name, separator, digits = line.rstrip().rpartition(": ")
        known = separator and name and re.fullmatch(r"[0-9a-fA-F]{1,8}", digits)
        scale = struct.unpack(">f", bytes.fromhex(digits.zfill(8)))[0] if known else np.nan
        if not (np.isfinite(scale) and scale > 0) or name in seen:
            raise EdgetlError(
                f"{where}, line {number}: {line[:80]!r} is not NAME: HEX with the float32 of a positive scale, each "
                "name once"
            )
        seen.add(name)
        yield name, float(scale)


def table_from_cache(
    model: onnx.ModelProto, scales: Mapping[str, float], target: QdqFormat, where: str
) -> CalibrationTable:
    """The table that a cache stands for: ranges without histograms, from no image.

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
    return CalibrationTable(
        method="calibration cache",
        graph_sha256=sha256_bytes(model_bytes(model)),
        images=(),
        tensors=tuple(_range(name, scales[name] * LEVELS, never_negative(wiring, name)) for name in needed),
    )


def _range(name: str, amax: float, one_sided: bool) -> TensorRange:
    low = 0.0 if one_sided else -amax
    return TensorRange(name=name, method="calibration cache", minimum=low, maximum=amax, low=low, high=amax)
