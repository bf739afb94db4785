"""Calibration images through a graph, at the speed of all cores, and what INT8 can be made of then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

import onnx

from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.calibration import CalibrationImage, CalibrationTable, FirstLayers, Trial
from edgetl.config import Recipe
from edgetl.data.images import Pixels
from edgetl.data.stream import File, stream, to_input
from edgetl.data.views import renderer
from edgetl.graph.calibrate import least_noisy_table, ranked_tables, watched
from edgetl.graph.end_layers import judge_first_layers
from edgetl.graph.equalise import equalise
from edgetl.graph.model import Wiring
from edgetl.graph.noise import mean_snr_db, results
from edgetl.graph.observe import Observation, Observer, quantisable_tensors
from edgetl.graph.parity import Outputs
from edgetl.graph.placement import Target, first_layers
from edgetl.graph.quantise import quantise
from edgetl.stages.forms import Form, Part, as_it_is
from edgetl.stages.stage import Watcher


@dataclass(frozen=True)
class Shown:
    """What a graph's tensors hold on some images, and the record of those images."""

    seen: Observation
    images: tuple[CalibrationImage, ...]


def observe(
    model: onnx.ModelProto,
    samples: Sequence[File],
    root: Path,
    preprocessing: Preprocessing,
    watcher: Watcher,
    tensors: Sequence[str] | None = None,
) -> Shown:
    """Show some images to a graph; broken files are left out.

    Raises:
        EdgetlError: as `Observer` and `stream` do.
    """
    observer = Observer(model, tensors)
    rows: list[int] = []

    def add(images: Pixels) -> int:
        return observer.add(to_input(images, preprocessing))

    with watcher.progress("calibration", len(samples)) as advance:
        for batch in stream(samples, root, renderer(preprocessing), add):
            advance(len(batch.rows) + len(batch.broken))
            rows.extend(batch.rows.tolist())
            for file in batch.broken:
                watcher.say(f"left out {file.path}: {file.reason}")
    images = tuple(CalibrationImage(path=samples[row].path, sha256=samples[row].sha256) for row in rows)
    return Shown(observer.seen(len(images)), images)


@dataclass(frozen=True)
class Calibration(Generic[File]):
    """The images that ranges are found on, to be shown to a graph in any form.

    ``tensors`` says what to watch in it, ``searched`` in which part of it to compare methods and forms.
    """

    samples: Sequence[File]
    root: Path
    preprocessing: Preprocessing
    recipe: Recipe
    watcher: Watcher
    tensors: Callable[[onnx.ModelProto], Sequence[str]] = quantisable_tensors
    searched: Part = as_it_is

    def shown(self, model: onnx.ModelProto) -> Shown:
        """What the images show of a graph.

        Raises:
            EdgetlError: as `observe` does.
        """
        tensors = watched(self.searched(model), self.tensors(model), self.recipe)
        return observe(model, self.samples, self.root, self.preprocessing, self.watcher, tensors)

    def tables(self, model: onnx.ModelProto, shown: Shown, target: Target) -> tuple[CalibrationTable, ...]:
        """The table of every method of the recipe, the best for ``target`` first."""
        return ranked_tables(self.searched(model), shown.seen, self.recipe, shown.images, target)

    def forms(self, model: onnx.ModelProto, shown: Shown, target: Target) -> tuple[Form, ...]:
        """What INT8 can be made of, the best for ``target`` first.

        That is the graph as it is with the table of every method; by ``auto`` also the best of them `mended`. Then that
        comes first which disturbs the graph's results least.

        Raises:
            EdgetlError: as `shown` does.
        """
        tables = self.tables(model, shown, target)
        plain = tuple(Form.plain(model, table) for table in tables)
        if self.recipe.method != "auto":
            return plain
        exact = results(self.searched(model), shown.seen.judging)
        bare = _with(plain[0], {"first": None})
        tried = (bare, self.mended(bare, shown.seen, target))
        noise = {form.what: self._snr_db(form, target, shown.seen, exact) for form in tried}
        best, *others = sorted(tried, key=lambda form: -noise[form.what])
        trials = (*tables[0].trials, *(Trial(method=form.what, snr_db=noise[form.what]) for form in tried[1:]))
        found = {
            "first": self._judged_first(best, target, shown.seen, exact, noise[best.what]),
            "trials": tuple(sorted(trials, key=lambda trial: -trial.snr_db)),
        }
        return tuple(_with(form, found) for form in (best, *others, *plain[1:]))

    def mended(self, form: Form, seen: Observation, target: Target) -> Form:
        """A form with its weights fitted, and before that channels equalised, where there are any to equalise.

        Of ranges for equalised channels, those of the method of the recipe that then disturbs results least.

        Raises:
            EdgetlError: as `shown` does.
        """
        equal, table, done = equalise(form.model, target, seen.fitting), form.table, "weights fitted"
        if equal != form.model:
            again = self.shown(equal)
            found = least_noisy_table(self.searched(equal), again.seen, self.recipe, again.images, target)
            table = found.model_copy(update={"first": table.first, "last": table.last})
            done = f"channels equalised, {done}"
        what = f"{table.method}{form.what.removeprefix(form.table.method)}, {done}"
        self.watcher.say(f"INT8 for {target} by {what}")
        return Form(equal, table.model_copy(update={"form": done}), what, seen.fitting)

    def _snr_db(self, form: Form, target: Target, seen: Observation, exact: Outputs) -> float:
        mixed = form.mix(target, searched=self.searched)
        quantised = quantise(self.searched(mixed.model), mixed.table, target, mixed.returned)
        return mean_snr_db(exact, results(quantised, seen.judging, tuple(exact)))

    def _judged_first(
        self, form: Form, target: Target, seen: Observation, exact: Outputs, in_int8: float
    ) -> FirstLayers | None:
        """Whether the first layers of a form are INT8: fitted weights may bear what others do not."""
        layers = first_layers(Wiring(self.searched(form.model).graph), target)
        whole, own = (self.searched(form.mix(target, more, self.searched).model) for more in ((), layers))
        return judge_first_layers(whole, form.table, target, seen.judging, exact, in_int8, own)


def _with(form: Form, update: Mapping[str, object]) -> Form:
    return replace(form, table=form.table.model_copy(update=dict(update)))
