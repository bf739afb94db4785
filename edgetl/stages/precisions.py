"""A study's graphs in every precision: calibrated once on training images, spelled for each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from edgetl.artifacts.bundle import IMAGES, Preprocessing
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import write_json
from edgetl.artifacts.guard import StudyGuard
from edgetl.config import Recipe, load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import File, input_of, stream
from edgetl.data.views import renderer
from edgetl.graph.half import to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation, quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.placement import Target, place
from edgetl.graph.sensitivity import mix
from edgetl.stages.forms import Form, Mix, Part
from edgetl.stages.guard import Guarding
from edgetl.stages.judging import Judge
from edgetl.stages.observing import Calibration, Shown
from edgetl.stages.stage import Context

TARGETS: tuple[Target, ...] = get_args(Target)
_FP16_IMAGES = 16


@dataclass(frozen=True)
class Graphs:
    """A study's graphs, all of them parts of one ``whole``: tensors of one name hold the same in all.

    ``part`` gets any of ``specs``, or one like them, from the whole. ``searched`` is the part in which methods and
    layers are compared: there, as in the graph of each engine, heads are the end. (A second level reads what other
    heads say, so in the whole these are not.)
    """

    whole: onnx.ModelProto
    specs: tuple[GraphSpec, ...]
    part: Callable[[GraphSpec], Part]
    searched: Part


@dataclass(frozen=True)
class Precisions:
    """How to write any graph of a study in any of its precisions.

    ``mixes``: for each spelling of INT8 the whole float graph, its table and the layers that are not INT8; a spelling
    that cannot meet the guard's budget is not there. ``float32``: what FP16 cannot hold, by the tensor it makes.
    """

    graphs: Graphs
    mixes: Mapping[Target, Mix]
    float32: Sequence[str]

    def spelled(self, spec: GraphSpec, precision: str) -> dict[Target, onnx.ModelProto]:
        """A graph in a precision, for each runtime that wants it in its own spelling; in float both are the same."""
        if precision == "int8":
            return {target: int8(self.graphs, spec, target, one, self.float32) for target, one in self.mixes.items()}
        model = self.graphs.part(spec)(self.graphs.whole)
        return dict.fromkeys(TARGETS, to_fp16(model, self.float32) if precision == "fp16" else model)


def int8(graphs: Graphs, spec: GraphSpec, target: Target, mixed: Mix, float32: Sequence[str]) -> onnx.ModelProto:
    """A study's graph in INT8, with the layers in float that are so in the whole."""
    model = graphs.part(spec)(mixed.model)
    wiring = Wiring(model.graph)
    if not place(wiring, target).layers:
        return model  # heads stay in float in every precision: what holds nothing but heads is the same in INT8
    returned = [name for name in mixed.returned if name in wiring.producers]
    return mix(model, mixed.table, target, returned, float32)


def judged_specs(shortlist: Shortlist, places: Mapping[str, str]) -> tuple[GraphSpec, ...]:
    """The fewest graphs in which every head of a shortlist is as it is in its engine.

    Heads at the same ``places`` can stand on one trunk; of others, a graph is left out whose heads are all in others
    already. The graphs of a cascade come last: they hand on tensors.
    """
    alone = [spec for spec in shortlist.graphs if spec.inputs == (IMAGES,) and not spec.handed_on]
    together: dict[frozenset[str], dict[str, None]] = {}
    for spec in alone:
        key = frozenset(places[head] for head in spec.heads)
        together.setdefault(key, {}).update(dict.fromkeys(spec.heads))
    seen: set[str] = set()
    chosen = []
    for heads in sorted(together.values(), key=len, reverse=True):
        if not seen.issuperset(heads):
            chosen.append(GraphSpec(stem="judged", heads=tuple(heads)))
            seen.update(heads)
    return (*chosen, *(spec for spec in shortlist.graphs if spec not in alone))


@dataclass(frozen=True)
class Preparing:
    """A study's graphs on their way into its precisions.

    ``judge`` makes the judge of the study's guard from the float graphs of ``judged``, and validation images. ``table``
    holds the ranges of the frozen trunk, where heads were trained with some.
    """

    context: Context
    root: Path
    preprocessing: Preprocessing
    graphs: Graphs
    judged: Sequence[GraphSpec]
    judge: Callable[[Sequence[onnx.ModelProto]], Judge]
    table: CalibrationTable | None = None

    def prepare(self, samples: Sequence[File]) -> tuple[Precisions, list[Path]]:
        """Calibrate once on training images and keep to the guard; the files that say how that went."""
        wanted, whole = self.context.study, self.graphs.whole
        halves = {"fp16", "int8"} & set(wanted.precisions)  # layers that leave INT8 are FP16
        float32 = self._overflowing(samples) if halves else ()
        if "int8" not in wanted.precisions:
            return Precisions(self.graphs, {}, float32), []
        calibration = self._calibration(samples)
        if wanted.guard is None and self.table is not None and _covers(self.table, calibration.tensors(whole)):
            mixes = self._mixes(dict.fromkeys(TARGETS, Form.plain(whole, self.table)))
            return Precisions(self.graphs, mixes, float32), self._write_tables(self.table, mixes)
        shown = calibration.shown(whole)
        forms = {target: self._forms(calibration, shown, target) for target in TARGETS}
        first = next(iter(forms.values()))[0].table
        if wanted.guard is None:
            mixes = self._mixes({target: own[0] for target, own in forms.items()})
            return Precisions(self.graphs, mixes, float32), self._write_tables(first, mixes)
        mixes = self._guarded(wanted.guard.max_accuracy_drop, calibration, float32, shown.seen, forms)
        return Precisions(self.graphs, mixes, float32), [*self._write_tables(first, mixes), self.context.run.guard]

    def _mixes(self, forms: Mapping[Target, Form]) -> dict[Target, Mix]:
        return {target: form.mix(target, searched=self.graphs.searched) for target, form in forms.items()}

    def _forms(self, calibration: Calibration[File], shown: Shown, target: Target) -> Sequence[Form]:
        """Where heads were trained with some ranges: the graph as it was then, with ranges for what is tuned above."""
        whole = self.graphs.whole
        if self.table is None:
            return calibration.forms(whole, shown, target)
        return [Form.plain(whole, _completed(self.table, calibration.tables(whole, shown, target)))]

    def _calibration(self, samples: Sequence[File]) -> Calibration[File]:
        recipe = load_recipe(self.context.study.calibration, self.context.beside)
        parts = [self.graphs.part(spec) for spec in self.graphs.specs]

        def tensors(whole: onnx.ModelProto) -> tuple[str, ...]:
            every = (*(part(whole) for part in parts), self.graphs.searched(whole))
            return tuple(dict.fromkeys(name for model in every for name in quantisable_tensors(model)))

        return Calibration(
            samples=draw(samples, recipe),
            root=self.root,
            preprocessing=self.preprocessing,
            recipe=recipe,
            watcher=self.context.watcher,
            tensors=tensors,
            searched=self.graphs.searched,
        )

    def _overflowing(self, samples: Sequence[File]) -> tuple[str, ...]:
        """What FP16 cannot hold, told on a few training images."""
        few = draw(samples, Recipe(images=_FP16_IMAGES))
        batches = stream(few, self.root, renderer(self.preprocessing), input_of(self.preprocessing))
        kept = overflowing(self.graphs.whole, np.concatenate([batch.result for batch in batches]))
        for name, reason in kept.items():
            self.context.watcher.say(f"export: {name} stays in FP32: {reason}, beyond what FP16 holds")
        return tuple(kept)

    def _guarded(
        self,
        budget: float,
        calibration: Calibration[File],
        float32: Sequence[str],
        seen: Observation,
        forms: Mapping[Target, Sequence[Form]],
    ) -> dict[Target, Mix]:
        """The mix of each spelling that meets the budget; how that went is written beside the graphs."""
        graphs, watcher = self.graphs, self.context.watcher
        judge = self.judge([graphs.part(spec)(graphs.whole) for spec in self.judged])
        mixes, guards = {}, {}
        for target in TARGETS:

            def written(mixed: Mix, target: Target = target) -> list[onnx.ModelProto]:
                return [int8(graphs, spec, target, mixed, float32) for spec in self.judged]

            watcher.say(f"export: INT8 for {target}, judged on {judge.images} validation images")
            guarding = Guarding(judge, budget, target, calibration.mended, written, watcher, graphs.searched)
            chosen, guards[str(target)] = guarding.search(seen, forms[target])
            if chosen is None:
                watcher.say(f"export: no INT8 for {target}: {guards[target].missed}")
                self._remove_older(target)
            else:
                mixes[target] = chosen
        write_json(self.context.run.guard, StudyGuard(spellings=guards))
        return mixes

    def _remove_older(self, target: Target) -> None:
        """Graphs of an earlier export, with another guard or none, would be taken for those of this one."""
        for spec in self.graphs.specs:
            (self.context.run.graphs / spec.file("int8", target)).unlink(missing_ok=True)

    def _write_tables(self, first: CalibrationTable, mixes: Mapping[Target, Mix]) -> list[Path]:
        """The table of ranges; a spelling that the guard mended may have one of its own."""
        own = {f"calibration.{target}": mixed.table for target, mixed in mixes.items() if mixed.table != first}
        paths = []
        for name, table in {"calibration": first, **own}.items():
            paths.append(self.context.run.graphs / f"{name}.json")
            write_json(paths[-1], table)
        return paths


def _covers(table: CalibrationTable, tensors: Sequence[str]) -> bool:
    return table.by_name().keys() >= set(tensors)


def _completed(table: CalibrationTable, tables: Sequence[CalibrationTable]) -> CalibrationTable:
    """A table of frozen layers, with the ranges that its method gave to what was tuned above them."""
    whole = next(one for one in tables if one.method == table.method)
    ranges = whole.by_name() | table.by_name()
    update = {"graph_sha256": whole.graph_sha256, "tensors": tuple(ranges.values())}
    return table if len(ranges) == len(table.tensors) else table.model_copy(update=update)
