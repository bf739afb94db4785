"""Recomputes latencies from the raw samples of an earlier measurement, made here or on another device."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from edgetl.artifacts.files import read_bytes, read_json
from edgetl.artifacts.results import DeploymentResult, Latency, Profile, Results
from edgetl.errors import EdgetlError
from edgetl.measure.latency import compare_latencies, summarise
from edgetl.measure.timing import LatencySamples


def reload(path: Path) -> Profile:
    """The profile in a file of `profile` or `run`, with all latencies and ratios recomputed.

    Raises:
        EdgetlError: the file is none of those, or its raw samples are not beside it.
    """
    profile = _read(path)
    samples = {row.title: _samples(path, row, row.latency_ms) for row in profile.deployments if row.latency_ms}
    rows = []
    for row in profile.deployments:
        if row.latency_ms is not None:
            # The raw samples' place and the parts of the time on the device are not in the samples.
            kept = {"raw": row.latency_ms.raw, "device": row.latency_ms.device}
            latency = summarise(samples[row.title]).replaced(**kept)
            row = row.replaced(latency_ms=latency)
        rows.append(row)
    return profile.replaced(deployments=tuple(rows), comparisons=compare_latencies(samples))


def _read(path: Path) -> Profile:
    content = read_bytes(path)
    try:
        whole = isinstance(found := json.loads(content), dict) and "verdict" in found
    except ValueError:
        whole = False
    if not whole:
        return read_json(path, Profile)
    results = read_json(path, Results)
    return Profile(
        environment=results.environment,
        deployments=results.deployments,
        comparisons=(),
        disturbances=results.disturbances,
        scenarios=results.scenarios,
    )


def _samples(path: Path, row: DeploymentResult, latency: Latency) -> LatencySamples:
    if latency.raw is None:
        raise EdgetlError(f"{path} names no raw samples for {row.title}; measure again with -o DIR")
    inside = Path(latency.raw)
    if inside.is_absolute() or ".." in inside.parts:
        raise EdgetlError(f"{path} names samples outside of its folder ({latency.raw}); measure again")
    # A run's results.json lies above measurements/, and its paths are relative to the run.
    file = next((place for base in (path.parent, path.parent.parent) if (place := base / inside).is_file()), None)
    if file is None:
        raise EdgetlError(f"the raw samples {path.parent / inside} do not exist; copy them along with {path.name}")
    try:
        times = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise EdgetlError(f"{file} is no npy file of samples ({error}); measure again") from None
    if not isinstance(times, np.ndarray) or times.dtype != np.float64 or times.ndim != 2 or not times.size:
        raise EdgetlError(f"{file} holds no rounds x repeats of milliseconds; measure again")
    if not np.isfinite(times).all() or not (times > 0.0).all():
        raise EdgetlError(f"{file} holds times that are no positive numbers; measure again")
    return LatencySamples(times)
