"""Calibration images through a graph, at the speed of all cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationImage
from edgetl.data.images import Pixels
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.observe import Observation, Observer
from edgetl.stages.stage import Watcher


def observe(
    model: onnx.ModelProto,
    samples: Sequence[File],
    root: Path,
    preprocessing: Preprocessing,
    watcher: Watcher,
    tensors: Sequence[str] | None = None,
) -> tuple[Observation, tuple[CalibrationImage, ...]]:
    """What a graph's tensors hold on some images, and the record of those images; broken files are left out.

    Raises:
        EdgetlError: as `Observer` and `stream` do.
    """
    observer = Observer(model, tensors)
    rows: list[int] = []

    def add(images: Pixels) -> int:
        return observer.add(to_input(images))

    with watcher.progress("calibration", len(samples)) as advance:
        for batch in stream(samples, root, renderer(preprocessing), add):
            advance(len(batch.rows) + len(batch.broken))
            rows.extend(batch.rows.tolist())
            for file in batch.broken:
                watcher.say(f"left out {file.path}: {file.reason}")
    images = tuple(CalibrationImage(path=samples[row].path, sha256=samples[row].sha256) for row in rows)
    return observer.seen(len(images)), images
