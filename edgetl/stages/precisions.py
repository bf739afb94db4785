"""Prepares a study's graphs in every precision: calibrated once on training images, written for each QDQ format."""

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
    """A study's graphs, all parts of one ``whole``: tensors of one name hold the same values in all.

    ``part`` cuts any of ``specs``, or one like them, out of the whole. ``subgraph`` is the part in which methods and
    layers are compared: there, as in the graph of each engine, heads come last. (In the whole they do not: a second
    level reads the outputs of other heads.)
    """

    whole: onnx.ModelProto
    specs: tuple[GraphSpec, ...]
    part: Callable[[GraphSpec], SubgraphOf]
    subgraph: SubgraphOf


@dataclass(frozen=True)
class PrecisionWriter:
    """Writes any graph of a study in any of its precisions.

    ``assignments``: for each QDQ format the whole float graph, its table and the excluded layers; a format in which
    accuracy control cannot meet the budget is missing. ``float32``: the layers that FP16 cannot hold, by their output.
    """

    graphs: StudyGraphs
    assignments: Mapping[QdqFormat, PrecisionAssignment]
    float32: Sequence[str]

    def by_qdq_format(self, spec: GraphSpec, precision: str) -> dict[QdqFormat, onnx.ModelProto]:
        """A graph in a precision, for each QDQ format; in float all are the same."""
        if precision == "int8":
            return {
                target: int8(self.graphs, spec, target, one, self.float32) for target, one in self.assignments.items()
            }
        model = self.graphs.part(spec)(self.graphs.whole)
        return dict.fromkeys(TARGETS, to_fp16(model, self.float32) if precision == "fp16" else model)


def int8(
    graphs: StudyGraphs, spec: GraphSpec, target: QdqFormat, assignment: PrecisionAssignment, float32: Sequence[str]
) -> onnx.ModelProto:
    """A study's graph in INT8, without the layers that are excluded in the whole."""
    model = graphs.part(spec)(assignment.model)
    wiring = Wiring(model.graph)
    if not place_qdq(wiring, target).layers:
        return model  # heads stay in float in every precision: what holds nothing but heads is the same in INT8
    excluded = [name for name in assignment.excluded if name in wiring.producers]
    return mixed_precision_graph(model, assignment.table, target, excluded, float32)


def judged_specs(shortlist: Shortlist, places: Mapping[str, str]) -> tuple[GraphSpec, ...]:
    """The fewest graphs in which every head of a shortlist is as in its engine.

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
    """Prepares a study's graphs for its precisions.

    ``make_evaluator`` makes the evaluator for accuracy control from the float graphs of ``judged`` and validation
    images. ``table`` holds the ranges of the frozen trunk, where heads were trained with fixed ranges.
    """

    context: Context
    root: Path
    preprocessing: Preprocessing
    graphs: StudyGraphs
    judged: Sequence[GraphSpec]
    make_evaluator: Callable[[Sequence[onnx.ModelProto]], AccuracyEvaluator]
    table: CalibrationTable | None = None

    def prepare(self, samples: Sequence[ImageFileT]) -> tuple[PrecisionWriter, list[Path]]:
        """Calibrate once on training images, under accuracy control if the study asks for it.

        Returns:
            The writer of graphs, and the files that record tables and accuracy control.
        """
        study, whole = self.context.study, self.graphs.whole
        halves = {"fp16", "int8"} & set(study.precisions)  # layers that leave INT8 are FP16
        float32 = self._overflowing(samples) if halves else ()
        if "int8" not in study.precisions:
            return PrecisionWriter(self.graphs, {}, float32), []
        calibration = self._calibration(samples)
        if (
            study.accuracy_control is None
            and self.table is not None
            and self.table.by_name().keys() >= set(calibration.tensors(whole))
        ):
            # Heads were trained with this table, and nothing is tuned above the layers that it covers.
            assignments = self._assignments(dict.fromkeys(TARGETS, QuantizationVariant.plain(whole, self.table)))
            return PrecisionWriter(self.graphs, assignments, float32), self._write_tables(self.table, assignments)
        shown = calibration.observe(whole)
        variants = {target: self._variants(calibration, shown, target) for target in TARGETS}
        first = next(iter(variants.values()))[0].table
        if study.accuracy_control is None:
            assignments = self._assignments({target: own[0] for target, own in variants.items()})
            return PrecisionWriter(self.graphs, assignments, float32), self._write_tables(first, assignments)
        drop = study.accuracy_control.max_accuracy_drop
        assignments = self._with_accuracy_control(drop, calibration, float32, shown.observation, variants)
        tables = self._write_tables(first, assignments)
        return PrecisionWriter(self.graphs, assignments, float32), [*tables, self.context.run.accuracy_control]

    def _assignments(self, variants: Mapping[QdqFormat, QuantizationVariant]) -> dict[QdqFormat, PrecisionAssignment]:
        subgraph = self.graphs.subgraph
        return {target: variant.assign_precision(target, subgraph=subgraph) for target, variant in variants.items()}

    def _variants(
        self, calibration: Calibrator[ImageFileT], shown: CalibrationPass, target: QdqFormat
    ) -> Sequence[QuantizationVariant]:
        """The variants to choose from. Where heads were trained with ranges: only these, with those of tuned layers."""
        whole = self.graphs.whole
        if self.table is None:
            return calibration.variants(whole, shown, target)
        tables = calibration.tables(whole, shown, target)
        full = next(table for table in tables if table.method == self.table.method)
        ranges = full.by_name() | self.table.by_name()
        update = {"graph_sha256": full.graph_sha256, "tensors": tuple(ranges.values())}
        # Unchanged where nothing is added: heads were trained with this very table.
        grown = len(ranges) > len(self.table.tensors)
        return [QuantizationVariant.plain(whole, self.table.replaced(**update) if grown else self.table)]

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
        """The tensors that FP16 cannot hold, found on a few training images."""
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
        variants: Mapping[QdqFormat, Sequence[QuantizationVariant]],
    ) -> dict[QdqFormat, PrecisionAssignment]:
        """The assignments that meet the budget, by QDQ format; how they were found is written beside the graphs."""
        graphs, reporter, refine = self.graphs, self.context.reporter, calibration.refined
        evaluator = self.make_evaluator([graphs.part(spec)(graphs.whole) for spec in self.judged])
        assignments, results = {}, {}
        for target in TARGETS:
            # target as a default: a closure would see the loop's next one.
            def written(assignment: PrecisionAssignment, target: QdqFormat = target) -> list[onnx.ModelProto]:
                return [int8(graphs, spec, target, assignment, float32) for spec in self.judged]

            reporter.message(f"export: INT8 for {target}, evaluated on {evaluator.images} validation images")
            search = AccuracyControlSearch(evaluator, budget, target, refine, written, reporter, graphs.subgraph)
            chosen, results[str(target)] = search.search(seen, variants[target])
            if chosen is None:
                reporter.message(f"export: no INT8 for {target}: {results[target].why_not_met}")
                # Graphs of an earlier export, under another budget, would be taken for those of this one.
                for spec in graphs.specs:
                    (self.context.run.graphs / spec.file("int8", target)).unlink(missing_ok=True)
            else:
                assignments[target] = chosen
        write_json(self.context.run.accuracy_control, StudyAccuracyControl(formats=results))
        return assignments

    def _write_tables(
        self, first: CalibrationTable, assignments: Mapping[QdqFormat, PrecisionAssignment]
    ) -> list[Path]:
        """Write the table of ranges; a QDQ format that accuracy control refined may have one of its own."""
        own = {f"calibration.{target}": one.table for target, one in assignments.items() if one.table != first}
        paths = []
        for name, table in {"calibration": first, **own}.items():
            paths.append(self.context.run.graphs / f"{name}.json")
            write_json(paths[-1], table)
        return paths
