"""The file that ONNX Runtime's profiler writes: events in Chrome's trace format, times in microseconds."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetl.engine.layer_times import LayerTimes, from_runs
from edgetl.errors import EdgetlError

_KERNEL = "_kernel_time"
# Their time is that of the layers inside, which have events of their own.
_HOLD_OTHERS = frozenset({"Loop", "If", "Scan"})
_US_PER_MS = 1e3


def read_profile(path: Path, warm: int) -> LayerTimes:
    """Read the medians over all runs but the first ``warm``.

    Raises:
        EdgetlError: the file is no profile, or holds no layer.
    """
    try:
        events = [event for event in json.loads(path.read_bytes()) if isinstance(event, dict)]
    except (OSError, ValueError, TypeError) as error:
        raise EdgetlError(f"ONNX Runtime's profile cannot be read: {' '.join(str(error).split())}") from error
    runs = sorted((_span(event) for event in events if event.get("name") == "model_run"), key=lambda span: span[0])
    if len(runs) <= warm:
        raise EdgetlError(f"ONNX Runtime's profile holds {len(runs)} runs, expected more than {warm}")
    starts = [start for start, _ in runs]
    kernels: list[dict[tuple[str, str], float]] = [{} for _ in runs]
    for name, operator, start, microseconds in _kernels(events):
        # Events do not name their run: it is the last one that began before them, unless that had ended.
        number = bisect_right(starts, start) - 1
        if number >= 0 and start <= runs[number][0] + runs[number][1]:
            key = (name, operator)
            kernels[number][key] = kernels[number].get(key, 0.0) + microseconds / _US_PER_MS
    if not any(kernels[warm:]):
        raise EdgetlError("ONNX Runtime's profile holds no layer")
    whole = [microseconds / _US_PER_MS for _, microseconds in runs[warm:]]
    return from_runs("ONNX Runtime's profiler", kernels[warm:], whole)


def _span(event: dict[str, Any]) -> tuple[float, float]:
    start, microseconds = event.get("ts"), event.get("dur")
    if not isinstance(start, int | float) or not isinstance(microseconds, int | float):
        raise EdgetlError("ONNX Runtime's profile holds an event without a time")
    return float(start), float(microseconds)


def _kernels(events: list[dict[str, Any]]) -> Iterator[tuple[str, str, float, float]]:
    """Name, operator, start and duration of each layer that ran."""
    for event in events:
        name, told = event.get("name"), event.get("args")
        if event.get("cat") != "Node" or not isinstance(name, str) or not isinstance(told, dict):
            continue
        operator = str(told.get("op_name", ""))
        if name.endswith(_KERNEL) and operator not in _HOLD_OTHERS:
            yield (name.removesuffix(_KERNEL), operator, *_span(event))
