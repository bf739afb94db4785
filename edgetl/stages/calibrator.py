"""Calibration images through a graph, at the speed of all cores, and what INT8 can be made of then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration_table import CalibrationImage, CalibrationTable, CalibrationTrial, FirstLayers
from edgetl.config import CalibrationRecipe, QdqFormat
from edgetl.data.images import Pixels
from edgetl.data.stream import ImageFileT, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import least_noisy_table, ranked_tables, watched
from edgetl.graph.end_layers import assess_first_layers
from edgetl.graph.equalize import equalize
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation, Observer, quantisable_tensors
from edgetl.graph.parity import Outputs
from edgetl.graph.qdq_placement import first_layers
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results
from edgetl.stages.quantization_variants import QuantizationVariant, SubgraphOf, whole_graph
from edgetl.stages.stage import ProgressReporter


@dataclass(frozen=True)
class CalibrationPass:
    """What a graph's tensors hold on some images, and the record of those images."""

    observation: Observation
    images: tuple[CalibrationImage, ...]


def observe(
    model: onnx.ModelProto,
    samples: Sequence[ImageFileT],
    root: Path,
    preprocessing: Preprocessing,
    reporter: ProgressReporter,
    tensors: Sequence[str] | None = None,
) -> CalibrationPass:
    """Show some images to a graph; broken files are left out.

    Raises:
        EdgetlError: as `Observer` and `stream` do.
    """
    observer = Observer(model, tensors)
    rows: list[int] = []

    def add(images: Pixels) -> int:
        return observer.add(to_input(images, preprocessing))

    with reporter.progress("calibration", len(samples)) as advance:
        for batch in stream(samples, root, renderer(preprocessing), add):
            advance(len(batch.rows) + len(batch.broken))
            rows.extend(batch.rows.tolist())
            for file in batch.broken:
                reporter.message(f"left out {file.path}: {file.reason}")
    images = tuple(CalibrationImage(path=samples[row].path, sha256=samples[row].sha256) for row in rows)
    return CalibrationPass(observer.observation(len(images)), images)


@dataclass(frozen=True)
class Calibrator(Generic[ImageFileT]):
    """The images that ranges are found on, to be shown to a graph in any form.

    ``tensors`` says what to watch in it, ``subgraph`` in which part of it to compare methods and forms.
    """

    samples: Sequence[ImageFileT]
    root: Path
    preprocessing: Preprocessing
    recipe: CalibrationRecipe
    reporter: ProgressReporter
    tensors: Callable[[onnx.ModelProto], Sequence[str]] = quantisable_tensors
    subgraph: SubgraphOf = whole_graph

    def observe(self, model: onnx.ModelProto) -> CalibrationPass:
        """What the images show of a graph.

        Raises:
            EdgetlError: as `observe` does.
        """
        tensors = watched(self.subgraph(model), self.tensors(model), self.recipe)
        return observe(model, self.samples, self.root, self.preprocessing, self.reporter, tensors)

    def tables(self, model: onnx.ModelProto, shown: CalibrationPass, target: QdqFormat) -> tuple[CalibrationTable, ...]:
        """The table of every method of the recipe, the best for ``target`` first."""
        return ranked_tables(self.subgraph(model), shown.observation, self.recipe, shown.images, target)

    def variants(
        self, model: onnx.ModelProto, shown: CalibrationPass, target: QdqFormat
    ) -> tuple[QuantizationVariant, ...]:
        """What INT8 can be made of, the best for ``target`` first.

        That is the graph as it is with the table of every method; by ``auto`` also the best of them `refined`. Then
        that comes first which disturbs the graph's results least.

        Raises:
            EdgetlError: as `observe` does.
        """
        tables = self.tables(model, shown, target)
        plain = tuple(QuantizationVariant.plain(model, table) for table in tables)
        if self.recipe.method != "auto":
            return plain
        exact = results(self.subgraph(model), shown.observation.probe_images)
        bare = _with(plain[0], {"first": None})
        tried = (bare, self.refined(bare, shown.observation, target))
        noise = {form.description: self._snr_db(form, target, shown.observation, exact) for form in tried}
        best, *others = sorted(tried, key=lambda form: -noise[form.description])
        trials = (
            *tables[0].trials,
            *(CalibrationTrial(method=form.description, snr_db=noise[form.description]) for form in tried[1:]),
        )
        found = {
            "first": self._judged_first(best, target, shown.observation, exact, noise[best.description]),
            "trials": tuple(sorted(trials, key=lambda trial: -trial.snr_db)),
        }
        return tuple(_with(form, found) for form in (best, *others, *plain[1:]))

    def refined(self, form: QuantizationVariant, seen: Observation, target: QdqFormat) -> QuantizationVariant:
        """A form with its weights fitted, and before that channels equalised, where there are any to equalise.

        Of ranges for equalised channels, those of the method of the recipe that then disturbs results least.

        Raises:
            EdgetlError: as `observe` does.
        """
        equal, table, done = equalize(form.model, target, seen.fitting_images), form.table, "weights fitted"
        if equal != form.model:
            again = self.observe(equal)
            found = least_noisy_table(self.subgraph(equal), again.observation, self.recipe, again.images, target)
            table = found.model_copy(update={"first": table.first, "last": table.last})
            done = f"channels equalised, {done}"
        what = f"{table.method}{form.description.removeprefix(form.table.method)}, {done}"
        self.reporter.message(f"INT8 for {target} by {what}")
        return QuantizationVariant(equal, table.model_copy(update={"variant": done}), what, seen.fitting_images)

    def _snr_db(self, form: QuantizationVariant, target: QdqFormat, seen: Observation, exact: Outputs) -> float:
        mixed = form.assign_precision(target, subgraph=self.subgraph)
        quantised = quantize(self.subgraph(mixed.model), mixed.table, target, mixed.excluded)
        return mean_snr_db(exact, results(quantised, seen.probe_images, tuple(exact)))

    def _judged_first(
        self, form: QuantizationVariant, target: QdqFormat, seen: Observation, exact: Outputs, in_int8: float
    ) -> FirstLayers | None:
        """Whether the first layers of a form are INT8: fitted weights may bear what others do not."""
        layers = first_layers(Wiring(self.subgraph(form.model).graph), target)
        whole, own = (self.subgraph(form.assign_precision(target, more, self.subgraph).model) for more in ((), layers))
        return assess_first_layers(whole, form.table, target, seen.probe_images, exact, in_int8, own)


def _with(form: QuantizationVariant, update: Mapping[str, object]) -> QuantizationVariant:
    return replace(form, table=form.table.model_copy(update=dict(update)))
