"""A study's graphs in every precision: calibrated once on training images, spelled for each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.files import write_json
from edgetl.artifacts.guard import StudyGuard
from edgetl.config import Recipe, load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.half import to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation, quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.placement import Target, place
from edgetl.graph.sensitivity import mix
from edgetl.stages.guard import Guarding, Mix
from edgetl.stages.judging import Judge
from edgetl.stages.observing import Calibration
from edgetl.stages.stage import Context

Part = Callable[[onnx.ModelProto], onnx.ModelProto]
"""From a graph that holds all of a study's graphs to one of them."""

TARGETS: tuple[Target, ...] = get_args(Target)
_FP16_IMAGES = 16


@dataclass(frozen=True)
class Precisions:
    """How to write any part of a study's whole graph in any of its precisions.

    ``mixes``: for each spelling of INT8 the float graph, its table and the layers that are not INT8; a spelling that
    cannot meet the guard's budget is not there. ``float32``: what FP16 cannot hold, by the tensor it makes.
    """

    whole: onnx.ModelProto
    mixes: Mapping[Target, Mix]
    float32: Sequence[str]

    def spelled(self, part: Part, precision: str) -> dict[Target, onnx.ModelProto]:
        """A part in a precision, for each runtime that wants it in its own spelling; in float both are the same."""
        if precision == "int8":
            return {target: self._int8(part(mixed.model), target, mixed) for target, mixed in self.mixes.items()}
        model = part(self.whole)
        return dict.fromkeys(TARGETS, to_fp16(model, self.float32) if precision == "fp16" else model)

    def _int8(self, model: onnx.ModelProto, target: Target, mixed: Mix) -> onnx.ModelProto:
        wiring = Wiring(model.graph)
        if not place(wiring, target).layers:
            return model  # heads stay in float in every precision: what holds nothing but heads is the same in INT8
        returned = [name for name in mixed.returned if name in wiring.producers]
        return mix(model, mixed.table, target, returned, self.float32)


@dataclass(frozen=True)
class Preparing:
    """A study's graphs on their way into its precisions.

    ``parts`` are those of ``whole`` that will be written: tensors of one name hold the same in all of them. ``judge``
    makes the judge of the study's guard, from validation images.
    """

    context: Context
    root: Path
    preprocessing: Preprocessing
    whole: onnx.ModelProto
    parts: Sequence[Part]
    judge: Callable[[], Judge]

    def prepare(self, samples: Sequence[File]) -> tuple[Precisions, list[Path]]:
        """Calibrate once on training images, keep to the guard, and tell what was written down of that."""
        wanted = self.context.study
        halves = "fp16" in wanted.precisions or wanted.guard is not None
        float32 = self._overflowing(samples) if halves else ()
        if "int8" not in wanted.precisions:
            return Precisions(self.whole, {}, float32), []
        recipe = load_recipe(wanted.calibration, self.context.beside)
        images = draw(samples, recipe)
        calibration = Calibration(images, self.root, self.preprocessing, recipe, self.context.watcher, self._tensors)
        seen, tables = calibration.tables(self.whole)
        if wanted.guard is None:
            mixes = dict.fromkeys(TARGETS, Mix(self.whole, tables[0]))
            return Precisions(self.whole, mixes, float32), self._write_tables(tables[0], mixes)
        mixes, note = self._guarded(wanted.guard.max_accuracy_drop, calibration, float32, seen, tables)
        return Precisions(self.whole, mixes, float32), [*self._write_tables(tables[0], mixes), note]

    def _tensors(self, whole: onnx.ModelProto) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in quantisable_tensors(part(whole))))

    def _overflowing(self, samples: Sequence[File]) -> tuple[str, ...]:
        """What FP16 cannot hold, told on a few training images."""
        few = draw(samples, Recipe(images=_FP16_IMAGES))
        batches = stream(few, self.root, renderer(self.preprocessing), to_input)
        kept = overflowing(self.whole, np.concatenate([batch.result for batch in batches]))
        for name, reason in kept.items():
            self.context.watcher.say(f"export: {name} stays in FP32: {reason}, beyond what FP16 holds")
        return tuple(kept)

    def _guarded(
        self,
        budget: float,
        calibration: Calibration[File],
        float32: Sequence[str],
        seen: Observation,
        tables: Sequence[CalibrationTable],
    ) -> tuple[dict[Target, Mix], Path]:
        """The mix of each spelling that meets the budget; how that went is written beside the graphs."""
        judge, watcher = self.judge(), self.context.watcher
        mixes, guards = {}, {}
        for target in TARGETS:
            watcher.say(f"export: INT8 for {target}, judged on {judge.images} validation images")
            guarding = Guarding(judge, budget, target, partial(calibration.tables, target=target), float32, watcher)
            chosen, guards[str(target)] = guarding.search(self.whole, seen, tables)
            if chosen is None:
                watcher.say(f"export: no INT8 for {target}: {guards[target].missed}")
            else:
                mixes[target] = chosen
        path = self.context.run.guard
        write_json(path, StudyGuard(spellings=guards))
        return mixes, path

    def _write_tables(self, first: CalibrationTable, mixes: Mapping[Target, Mix]) -> list[Path]:
        """The table of ranges; a spelling that the guard mended may have one of its own."""
        own = {f"calibration.{target}": mixed.table for target, mixed in mixes.items() if mixed.table != first}
        paths = []
        for name, table in {"calibration": first, **own}.items():
            paths.append(self.context.run.graphs / f"{name}.json")
            write_json(paths[-1], table)
        return paths
