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
from edgetl.graph.calibrate import method_table, ranked_tables, watched
from edgetl.graph.end_layers import judge_first_layers
from edgetl.graph.equalise import equalise
from edgetl.graph.fit import fitted_layers
from edgetl.graph.model import Wiring
from edgetl.graph.noise import mean_snr_db, results
from edgetl.graph.observe import Observation, Observer, quantisable_tensors
from edgetl.graph.parity import Outputs
from edgetl.graph.placement import Target, first_layers
from edgetl.graph.quantise import quantise
from edgetl.stages.forms import Form, Part, as_it_is
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

    def tables(
        self, model: onnx.ModelProto, target: Target = "tensorrt"
    ) -> tuple[Observation, tuple[CalibrationTable, ...]]:
        """What the images showed, and the table of every method of the recipe, the best for ``target`` first.

        Raises:
            EdgetlError: as `observe` does.
        """
        seen, images = self._observe(model)
        return seen, ranked_tables(self.searched(model), seen, self.recipe, images, target)

    def forms(self, model: onnx.ModelProto, target: Target = "tensorrt") -> tuple[Observation, tuple[Form, ...]]:
        """What the images showed, and what INT8 can be made of, the best for ``target`` first.

        That is the graph as it is with the table of every method; by ``auto`` also with the best of them and what
        `mended` does. Then that comes first which disturbs the graph's results least.

        Raises:
            EdgetlError: as `observe` does.
        """
        seen, tables = self.tables(model, target)
        plain = tuple(Form.plain(model, table) for table in tables)
        if self.recipe.method != "auto":
            return seen, plain
        exact = results(self.searched(model), seen.judging)
        bare = _with(plain[0], {"first": None})
        tried = (bare, *self.mended(bare, seen))
        noise = {form.what: self._snr_db(form, target, seen, exact) for form in tried}
        best, *others = sorted(tried, key=lambda form: -noise[form.what])
        trials = (*tables[0].trials, *(Trial(method=form.what, snr_db=noise[form.what]) for form in tried[1:]))
        found = {
            "first": self._judged_first(best, target, seen, exact, noise[best.what]),
            "trials": tuple(sorted(trials, key=lambda trial: -trial.snr_db)),
        }
        return seen, tuple(_with(form, found) for form in (best, *others, *plain[1:]))

    def mended(self, form: Form, seen: Observation) -> tuple[Form, ...]:
        """A form with its weights fitted, and with channels equalised before that, where there are any to equalise.

        Raises:
            EdgetlError: as `observe` does.
        """
        self.watcher.say(f"fitting weights to INT8 by {form.what}")
        fitted = replace(
            form,
            table=form.table.model_copy(update={"form": "weights fitted"}),
            what=f"{form.what}, weights fitted",
            fitted=fitted_layers(self.searched(form.model), form.table, seen.fitting),
        )
        equal = equalise(form.model, seen.fitting)
        if equal == form.model:
            return (fitted,)
        what = "channels equalised, weights fitted"
        again, images = self._observe(equal)
        table = method_table(self.searched(equal), again, form.table.method, images)
        kept = {"form": what, "first": form.table.first, "last": form.table.last}
        weights = fitted_layers(self.searched(equal), table, seen.fitting)
        return fitted, Form(equal, table.model_copy(update=kept), f"{form.what}, {what}", weights)

    def _observe(self, model: onnx.ModelProto) -> tuple[Observation, tuple[CalibrationImage, ...]]:
        tensors = watched(self.searched(model), self.tensors(model), self.recipe)
        return observe(model, self.samples, self.root, self.preprocessing, self.watcher, tensors)

    def _snr_db(self, form: Form, target: Target, seen: Observation, exact: Outputs) -> float:
        mixed = form.mix(target, searched=self.searched)
        quantised = quantise(self.searched(mixed.model), mixed.table, target, mixed.returned)
        return mean_snr_db(exact, results(quantised, seen.judging, tuple(exact)))

    def _judged_first(
        self, form: Form, target: Target, seen: Observation, exact: Outputs, in_int8: float
    ) -> FirstLayers | None:
        """Whether the first layers of a form are INT8: fitted weights may bear what others do not."""
        layers = first_layers(Wiring(self.searched(form.model).graph))
        whole, own = (self.searched(form.mix(target, more, self.searched).model) for more in ((), layers))
        return judge_first_layers(whole, form.table, target, seen.judging, exact, in_int8, own)


def _with(form: Form, update: Mapping[str, object]) -> Form:
    return replace(form, table=form.table.model_copy(update=dict(update)))
