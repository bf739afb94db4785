"""The accuracy guard: INT8 that misses its budget is mended as far as needed, and no further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx

from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.prepared import Attempt, Guard, LayerNote
from edgetl.errors import NotMetError
from edgetl.graph.bias import correct_biases
from edgetl.graph.equalise import equalise, has_depthwise
from edgetl.graph.observe import Observation
from edgetl.graph.placement import Target
from edgetl.graph.sensitivity import LayerLoss, layer_losses, mix
from edgetl.measure import bootstrap
from edgetl.stages.judging import Hits, Judge
from edgetl.stages.stage import Watcher

_BEST_METHODS = 3
_LOOKED_AT = 16
_MOST_RETURNED = 0.5
"""The share of its layers that INT8 may lose: with more, it is FP16 with some INT8 in it."""

Tables = Callable[[onnx.ModelProto], tuple[Observation, Sequence[CalibrationTable]]]


@dataclass(frozen=True)
class Mix:
    """A float graph, the table it is quantised with, and the layers that are not INT8 all the same."""

    model: onnx.ModelProto
    table: CalibrationTable
    returned: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tried:
    """A mix, and what it is taken to lose; ``number`` is its position among the attempts."""

    mix: Mix
    loss: float
    number: int


@dataclass
class Guarding:
    """One search for the mix that meets a budget.

    ``tables``: calibrates a graph, the best method first. ``float32``: layers that overflow in FP16.
    """

    judge: Judge
    budget: float
    target: Target
    tables: Tables
    float32: Sequence[str]
    watcher: Watcher
    attempts: list[Attempt] = field(default_factory=list)
    _exact: Hits = field(default_factory=dict)

    def search(
        self, model: onnx.ModelProto, seen: Observation, tables: Sequence[CalibrationTable]
    ) -> tuple[Mix, Guard]:
        """The first mix that loses no more than the budget, from the cheapest remedy to the dearest.

        First the methods that disturb results least, judged by accuracy. Then, where channels differ most (depthwise
        convolutions), bias correction and equalisation. Then the fewest layers leave INT8.

        A budget is met where the drop and its standard error together are within it: of several attempts the luckiest
        is taken, and on other images its luck is gone.

        Raises:
            NotMetError: even with half of its layers out of INT8 the budget is missed.
        """
        self._exact = self.judge.hits(model)
        best = min((self._try(Mix(model, table), table.method) for table in tables[:_BEST_METHODS]), key=_loss)
        losses: tuple[LayerLoss, ...] = ()
        if best.loss > self.budget and has_depthwise(model):
            best = min([best, *self._mended(model, seen, best.mix.table)], key=_loss)
        if best.loss > self.budget:
            losses = self._losses(best.mix, seen)
            best = self._fewest(best.mix, losses)
        return best.mix, self._report(losses, best)

    def _try(self, mixed: Mix, what: str) -> _Tried:
        graph = mix(mixed.model, mixed.table, self.target, mixed.returned, self.float32)
        hits = self.judge.hits(graph)
        errors = {name: bootstrap.paired_error(self._exact[name], hits[name]) for name in hits}
        drops = {name: bootstrap.paired_difference(self._exact[name], hits[name]) for name in hits}
        worst = max(drops, key=lambda name: drops[name][0] + errors[name])
        drop, low, high = drops[worst]
        attempt = Attempt(
            what=what,
            returned=len(mixed.returned),
            accuracy=bootstrap.share(hits[worst]),
            drop=drop,
            error=errors[worst],
            drop_low=low,
            drop_high=high,
        )
        self.attempts.append(attempt)
        self.watcher.say(
            f"INT8 by {what}, {attempt.returned} layers out of it: {attempt.accuracy.value:.1%}, "
            f"{drop:+.2%} lost, give or take {attempt.error:.2%}"
        )
        return _Tried(mixed, drop + attempt.error, len(self.attempts) - 1)

    def _mended(self, model: onnx.ModelProto, seen: Observation, table: CalibrationTable) -> Sequence[_Tried]:
        corrected = self._try(Mix(correct_biases(model, seen.probes), table), f"{table.method}, biases corrected")
        if corrected.loss <= self.budget:
            return [corrected]
        equal = equalise(model, seen.probes)
        again, tables = self.tables(equal)
        what = f"{tables[0].method}, channels equalised, biases corrected"
        return [corrected, self._try(Mix(correct_biases(equal, again.probes), tables[0]), what)]

    def _losses(self, mixed: Mix, seen: Observation) -> tuple[LayerLoss, ...]:
        self.watcher.say("looking for the layers that INT8 harms")
        return layer_losses(mixed.model, mixed.table, self.target, seen.probes[:_LOOKED_AT])

    def _fewest(self, mixed: Mix, losses: Sequence[LayerLoss]) -> _Tried:
        """The shortest beginning of the losses that does it; then without whatever of it is not needed after all."""

        def without(groups: Sequence[LayerLoss]) -> _Tried:
            returned = tuple(name for group in groups for name in group.layers)
            return self._try(Mix(mixed.model, mixed.table, returned), mixed.table.method)

        few, many = 0, int(len(losses) * _MOST_RETURNED) + 1
        best: _Tried | None = None
        while many - few > 1:
            # Mostly a few layers do it: sizes double until they do.
            size = min(max(1, 2 * few), many - 1) if best is None else (few + many) // 2
            tried = without(losses[:size])
            if tried.loss <= self.budget:
                best, many = tried, size
            else:
                few = size
        if best is None:
            raise self._missed(len(losses))
        kept = list(losses[:many])
        for group in kept[-2::-1]:
            tried = without([one for one in kept if one is not group])
            if tried.loss <= self.budget:
                best = tried
                kept.remove(group)
        return best

    def _missed(self, groups: int) -> NotMetError:
        nearest = min(self.attempts, key=lambda attempt: attempt.drop + attempt.error)
        return NotMetError(
            f"INT8 loses more than {self.budget:.2%} of accuracy on {self._images} images: the nearest of "
            f"{len(self.attempts)} attempts ({nearest.what}, {nearest.returned} of {groups} layers out of INT8) loses "
            f"{nearest.drop:.2%}, give or take {nearest.error:.2%}; judge by more "
            "images, allow more with --max-accuracy-drop, calibrate on more images, or take fp16"
        )

    @property
    def _images(self) -> int:
        return len(next(iter(self._exact.values())))

    def _report(self, losses: Sequence[LayerLoss], chosen: _Tried) -> Guard:
        return Guard(
            max_accuracy_drop=self.budget,
            images=self._images,
            fp32={name: bootstrap.share(hits) for name, hits in self._exact.items()},
            attempts=tuple(self.attempts),
            taken=chosen.number,
            layers=tuple(
                LayerNote(
                    layers=loss.layers,
                    snr_db=loss.snr_db,
                    latency_cost=loss.latency,
                    returned=set(loss.layers) <= set(chosen.mix.returned),
                )
                for loss in losses
            ),
        )


def _loss(tried: _Tried) -> float:
    return tried.loss
