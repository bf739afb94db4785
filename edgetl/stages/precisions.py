"""A study's graphs in every precision: calibrated once on training images, spelled for each runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from edgetl.artifacts.accuracy_control_record import StudyAccuracyControl
from edgetl.artifacts.bundle import IMAGES, Preprocessing
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.deployment import GraphSpec, Shortlist
from edgetl.artifacts.files import write_json
from edgetl.config import CalibrationRecipe, QdqFormat, load_recipe
from edgetl.data.calibration_images import draw
from edgetl.data.stream import ImageFileT, input_of, stream
from edgetl.data.views import renderer
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation, quantisable_tensors
from edgetl.graph.overflow import overflowing
from edgetl.graph.qdq_placement import place_qdq
from edgetl.graph.sensitivity import mixed_precision_graph
from edgetl.stages.accuracy_control import AccuracyControlSearch
from edgetl.stages.accuracy_evaluator import AccuracyEvaluator
from edgetl.stages.calibrator import CalibrationPass, Calibrator
from edgetl.stages.quantization_variants import PrecisionAssignment, QuantizationVariant, SubgraphOf
from edgetl.stages.stage import Context

TARGETS: tuple[QdqFormat, ...] = get_args(QdqFormat)
_FP16_IMAGES = 16


@dataclass(frozen=True)
class StudyGraphs:
    """A study's graphs, all of them parts of one ``whole``: tensors of one name hold the same in all.

    ``part`` gets any of ``specs``, or one like them, from the whole. ``subgraph`` is the part in which methods and
    layers are compared: there, as in the graph of each engine, heads are the end. (A second level reads what other
    heads say, so in the whole these are not.)
    """

    whole: onnx.ModelProto
    specs: tuple[GraphSpec, ...]
    part: Callable[[GraphSpec], SubgraphOf]
    subgraph: SubgraphOf


@dataclass(frozen=True)
class PrecisionWriter:
    """How to write any graph of a study in any of its precisions.

    ``assignments``: for each spelling of INT8 the whole float graph, its table and the layers that are not INT8; a
    spelling that cannot meet the guard's budget is not there. ``float32``: what FP16 cannot hold, by the tensor it
    makes.
    """

    graphs: StudyGraphs
    assignments: Mapping[QdqFormat, PrecisionAssignment]
    float32: Sequence[str]

    def by_qdq_format(self, spec: GraphSpec, precision: str) -> dict[QdqFormat, onnx.ModelProto]:
        """A graph in a precision, for each runtime that wants it in its own spelling; in float both are the same."""
        if precision == "int8":
            return {
                target: int8(self.graphs, spec, target, one, self.float32) for target, one in self.assignments.items()
            }
        model = self.graphs.part(spec)(self.graphs.whole)
        return dict.fromkeys(TARGETS, to_fp16(model, self.float32) if precision == "fp16" else model)


def int8(
    graphs: StudyGraphs, spec: GraphSpec, target: QdqFormat, assignment: PrecisionAssignment, float32: Sequence[str]
) -> onnx.ModelProto:
    """A study's graph in INT8, with the layers in float that are so in the whole."""
    model = graphs.part(spec)(assignment.model)
    wiring = Wiring(model.graph)
    if not place_qdq(wiring, target).layers:
        return model  # heads stay in float in every precision: what holds nothing but heads is the same in INT8
    returned = [name for name in assignment.excluded if name in wiring.producers]
    return mixed_precision_graph(model, assignment.table, target, returned, float32)


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
class StudyPreparation:
    """A study's graphs on their way into its precisions.

    ``make_evaluator`` makes the judge of the study's guard from the float graphs of ``judged``, and validation images.
    ``table`` holds the ranges of the frozen trunk, where heads were trained with some.
    """

    context: Context
    root: Path
    preprocessing: Preprocessing
    graphs: StudyGraphs
    judged: Sequence[GraphSpec]
    make_evaluator: Callable[[Sequence[onnx.ModelProto]], AccuracyEvaluator]
    table: CalibrationTable | None = None

    def prepare(self, samples: Sequence[ImageFileT]) -> tuple[PrecisionWriter, list[Path]]:
        """Calibrate once on training images and keep to the guard; the files that say how that went."""
        wanted, whole = self.context.study, self.graphs.whole
        halves = {"fp16", "int8"} & set(wanted.precisions)  # layers that leave INT8 are FP16
        float32 = self._overflowing(samples) if halves else ()
        if "int8" not in wanted.precisions:
            return PrecisionWriter(self.graphs, {}, float32), []
        calibration = self._calibration(samples)
        if (
            wanted.accuracy_control is None
            and self.table is not None
            and _covers(self.table, calibration.tensors(whole))
        ):
            mixes = self._assignments(dict.fromkeys(TARGETS, QuantizationVariant.plain(whole, self.table)))
            return PrecisionWriter(self.graphs, mixes, float32), self._write_tables(self.table, mixes)
        shown = calibration.observe(whole)
        forms = {target: self._variants(calibration, shown, target) for target in TARGETS}
        first = next(iter(forms.values()))[0].table
        if wanted.accuracy_control is None:
            mixes = self._assignments({target: own[0] for target, own in forms.items()})
            return PrecisionWriter(self.graphs, mixes, float32), self._write_tables(first, mixes)
        mixes = self._with_accuracy_control(
            wanted.accuracy_control.max_accuracy_drop, calibration, float32, shown.observation, forms
        )
        return PrecisionWriter(self.graphs, mixes, float32), [
            *self._write_tables(first, mixes),
            self.context.run.accuracy_control,
        ]

    def _assignments(self, forms: Mapping[QdqFormat, QuantizationVariant]) -> dict[QdqFormat, PrecisionAssignment]:
        return {target: form.assign_precision(target, subgraph=self.graphs.subgraph) for target, form in forms.items()}

    def _variants(
        self, calibration: Calibrator[ImageFileT], shown: CalibrationPass, target: QdqFormat
    ) -> Sequence[QuantizationVariant]:
        """Where heads were trained with some ranges: the graph as it was then, with ranges for what is tuned above."""
        whole = self.graphs.whole
        if self.table is None:
            return calibration.variants(whole, shown, target)
        return [QuantizationVariant.plain(whole, _completed(self.table, calibration.tables(whole, shown, target)))]

    def _calibration(self, samples: Sequence[ImageFileT]) -> Calibrator[ImageFileT]:
        recipe = load_recipe(self.context.study.calibration, self.context.base_dir)
        parts = [self.graphs.part(spec) for spec in self.graphs.specs]

        def tensors(whole: onnx.ModelProto) -> tuple[str, ...]:
            every = (*(part(whole) for part in parts), self.graphs.subgraph(whole))
            return tuple(dict.fromkeys(name for model in every for name in quantisable_tensors(model)))

        return Calibrator(
            samples=draw(samples, recipe),
            root=self.root,
            preprocessing=self.preprocessing,
            recipe=recipe,
            reporter=self.context.reporter,
            tensors=tensors,
            subgraph=self.graphs.subgraph,
        )

    def _overflowing(self, samples: Sequence[ImageFileT]) -> tuple[str, ...]:
        """What FP16 cannot hold, told on a few training images."""
        few = draw(samples, CalibrationRecipe(images=_FP16_IMAGES))
        batches = stream(few, self.root, renderer(self.preprocessing), input_of(self.preprocessing))
        kept = overflowing(self.graphs.whole, np.concatenate([batch.result for batch in batches]))
        for name, reason in kept.items():
            self.context.reporter.message(f"export: {name} stays in FP32: {reason}, beyond what FP16 holds")
        return tuple(kept)

    def _with_accuracy_control(
        self,
        budget: float,
        calibration: Calibrator[ImageFileT],
        float32: Sequence[str],
        seen: Observation,
        forms: Mapping[QdqFormat, Sequence[QuantizationVariant]],
    ) -> dict[QdqFormat, PrecisionAssignment]:
        """The mix of each spelling that meets the budget; how that went is written beside the graphs."""
        graphs, watcher = self.graphs, self.context.reporter
        judge = self.make_evaluator([graphs.part(spec)(graphs.whole) for spec in self.judged])
        mixes, guards = {}, {}
        for target in TARGETS:

            def written(mixed: PrecisionAssignment, target: QdqFormat = target) -> list[onnx.ModelProto]:
                return [int8(graphs, spec, target, mixed, float32) for spec in self.judged]

            watcher.message(f"export: INT8 for {target}, judged on {judge.images} validation images")
            guarding = AccuracyControlSearch(
                judge, budget, target, calibration.refined, written, watcher, graphs.subgraph
            )
            chosen, guards[str(target)] = guarding.search(seen, forms[target])
            if chosen is None:
                watcher.message(f"export: no INT8 for {target}: {guards[target].why_not_met}")
                self._remove_older(target)
            else:
                mixes[target] = chosen
        write_json(self.context.run.accuracy_control, StudyAccuracyControl(formats=guards))
        return mixes

    def _remove_older(self, target: QdqFormat) -> None:
        """Graphs of an earlier export, with another guard or none, would be taken for those of this one."""
        for spec in self.graphs.specs:
            (self.context.run.graphs / spec.file("int8", target)).unlink(missing_ok=True)

    def _write_tables(self, first: CalibrationTable, mixes: Mapping[QdqFormat, PrecisionAssignment]) -> list[Path]:
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
