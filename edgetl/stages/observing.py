"""Calibration images through a graph, at the speed of all cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationImage, CalibrationTable
from edgetl.config import Recipe
from edgetl.data.images import Pixels
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import ranked_tables, watched
from edgetl.graph.observe import Observation, Observer, quantisable_tensors
from edgetl.graph.placement import Target
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


Part = Callable[[onnx.ModelProto], onnx.ModelProto]
"""From a graph to one that lies within it, under the names that tensors have there."""


def as_it_is(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


@dataclass(frozen=True)
class Calibration(Generic[File]):
    """The images that ranges are found on, to be shown to a graph in any form.

    ``tensors`` says what to watch in it, ``searched`` in which part of it to compare methods.
    """

    samples: Sequence[File]
    root: Path
    preprocessing: Preprocessing
    recipe: Recipe
    watcher: Watcher
    tensors: Callable[[onnx.ModelProto], Sequence[str]] = quantisable_tensors
    searched: Part = as_it_is

    def tables(
        self, model: onnx.ModelProto, target: Target = "tensorrt"
    ) -> tuple[Observation, tuple[CalibrationTable, ...]]:
        """What the images showed, and the table of every method of the recipe, the best for ``target`` first.

        Raises:
            EdgetlError: as `observe` does.
        """
        part = self.searched(model)
        tensors = watched(part, self.tensors(model), self.recipe)
        seen, images = observe(model, self.samples, self.root, self.preprocessing, self.watcher, tensors)
        return seen, ranked_tables(part, seen, self.recipe, images, target)
