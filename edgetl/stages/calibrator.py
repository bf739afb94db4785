"""Runs calibration images through a graph on all cores, and makes variants for INT8 of what is observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration_table import CalibrationImage, CalibrationTable, CalibrationTrial
from edgetl.config import CalibrationRecipe, QdqFormat
from edgetl.data.images import Pixels
from edgetl.data.stream import ImageFileT, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import least_noisy_table, ranked_tables, watched
from edgetl.graph.end_layers import assess_first_layers
from edgetl.graph.equalize import equalize
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation, Observer, quantisable_tensors
from edgetl.graph.qdq_placement import first_layers
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results
from edgetl.stages.quantization_variants import QuantizationVariant, SubgraphOf, whole_graph
from edgetl.stages.stage import ProgressReporter


@dataclass(frozen=True)
class CalibrationPass:
    """The values of a graph's tensors on some images, and the record of those images."""

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
    """Run a graph on some images and observe its tensors; broken files are left out.

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
    """Calibrates graphs of one network, in any variant, on the same images.

    ``tensors`` gives the tensors to watch, ``subgraph`` the part of the graph in which to compare methods and variants.
    """

    samples: Sequence[ImageFileT]
    root: Path
    preprocessing: Preprocessing
    recipe: CalibrationRecipe
    reporter: ProgressReporter
    tensors: Callable[[onnx.ModelProto], Sequence[str]] = quantisable_tensors
    subgraph: SubgraphOf = whole_graph

    def observe(self, model: onnx.ModelProto) -> CalibrationPass:
        """The values of a graph's tensors on the images.

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
        """The variants for INT8, the best for ``target`` first.

        These are the graph as it is with the table of every method, and with ``auto`` the best of them `refined`. The
        one of these two that disturbs the graph's results least comes first.

        Raises:
            EdgetlError: as `observe` does.
        """
        tables = self.tables(model, shown, target)
        plain = tuple(QuantizationVariant.plain(model, table) for table in tables)
        if self.recipe.method != "auto":
            return plain
        seen = shown.observation
        exact = results(self.subgraph(model), seen.probe_images)
        bare = _with(plain[0], {"first": None})
        tried = (bare, self.refined(bare, seen, target))
        noise = {}
        for variant in tried:
            mixed = variant.assign_precision(target, subgraph=self.subgraph)
            quantised = quantize(self.subgraph(mixed.model), mixed.table, target, mixed.excluded)
            noise[variant.description] = mean_snr_db(exact, results(quantised, seen.probe_images, tuple(exact)))
        best, *others = sorted(tried, key=lambda variant: -noise[variant.description])
        trials = (
            *tables[0].trials,
            *(CalibrationTrial(method=variant.description, snr_db=noise[variant.description]) for variant in tried[1:]),
        )
        # Whether first layers are INT8 is decided for the best variant: fitted weights may bear what others do not.
        layers = first_layers(Wiring(self.subgraph(best.model).graph), target)
        whole, own = (self.subgraph(best.assign_precision(target, more, self.subgraph).model) for more in ((), layers))
        in_int8 = noise[best.description]
        found = {
            "first": assess_first_layers(whole, best.table, target, seen.probe_images, exact, in_int8, own),
            "trials": tuple(sorted(trials, key=lambda trial: -trial.snr_db)),
        }
        return tuple(_with(variant, found) for variant in (best, *others, *plain[1:]))

    def refined(self, variant: QuantizationVariant, seen: Observation, target: QdqFormat) -> QuantizationVariant:
        """The variant with its weights fitted, and before that channels equalised where that is possible.

        Equalised channels get the ranges of that method of the recipe which disturbs results least.

        Raises:
            EdgetlError: as `observe` does.
        """
        equal, table, done = equalize(variant.model, target, seen.fitting_images), variant.table, "weights fitted"
        if equal != variant.model:
            # Equalised channels have other ranges, so the images are observed again.
            again = self.observe(equal)
            found = least_noisy_table(self.subgraph(equal), again.observation, self.recipe, again.images, target)
            table = found.replaced(first=table.first, last=table.last)
            done = f"channels equalised, {done}"
        what = f"{table.method}{variant.description.removeprefix(variant.table.method)}, {done}"
        self.reporter.message(f"INT8 for {target} by {what}")
        return QuantizationVariant(equal, table.replaced(variant=done), what, seen.fitting_images)


def _with(variant: QuantizationVariant, update: Mapping[str, object]) -> QuantizationVariant:
    return replace(variant, table=variant.table.replaced(**update))
