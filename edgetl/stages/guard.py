"""The accuracy guard: INT8 that misses its budget is mended as far as needed, and no further."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.guard import Attempt, Guard, LayerNote
from edgetl.graph.bias import Floats, corrected_biases, with_biases
from edgetl.graph.equalise import equalise, has_depthwise
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation
from edgetl.graph.placement import Target, place
from edgetl.graph.sensitivity import LayerLoss, layer_losses
from edgetl.stages.judging import Judge
from edgetl.stages.observing import Part, as_it_is
from edgetl.stages.stage import Watcher

_BEST_METHODS = 3
_LOOKED_AT = 16
_MOST_RETURNED = 0.5
"""The share of its layers that may leave INT8: with more, it is FP16 with some INT8 in it."""

Tables = Callable[[onnx.ModelProto], tuple[Observation, Sequence[CalibrationTable]]]


@dataclass(frozen=True)
class Mix:
    """A float graph, the table it is quantised with, and the layers that are not INT8 all the same."""

    model: onnx.ModelProto
    table: CalibrationTable
    returned: tuple[str, ...]

    @classmethod
    def of(cls, model: onnx.ModelProto, table: CalibrationTable) -> Mix:
        """With no layer out of INT8 but the first ones, where the table says so."""
        return cls(model, table, table.first_in_float())


@dataclass(frozen=True)
class _Form:
    """A float graph and a table for it, and ``what`` they are.

    ``biases`` make up for the rounding of weights, by the tensor that a layer makes: they are for layers in INT8 alone.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    what: str
    biases: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class _Tried:
    """A form, some of its layers not in INT8, and what came of it; ``number`` is its position among the attempts."""

    form: _Form
    mix: Mix
    attempt: Attempt
    number: int

    @property
    def loss(self) -> float:
        return self.attempt.loss


@dataclass
class Guarding:
    """One search for the mix that meets a budget.

    ``tables``: calibrates a graph, the best method first. ``graphs``: what the judge is shown of a mix. ``searched``:
    the part of the graph in which layers are tried one by one.
    """

    judge: Judge
    budget: float
    target: Target
    tables: Tables
    graphs: Callable[[Mix], Sequence[onnx.ModelProto]]
    watcher: Watcher
    searched: Part = as_it_is
    attempts: list[_Tried] = field(default_factory=list)

    def search(
        self, model: onnx.ModelProto, seen: Observation, tables: Sequence[CalibrationTable]
    ) -> tuple[Mix | None, Guard]:
        """The first mix that loses no more than the budget, from the cheapest remedy to the dearest; None if none does.

        First the methods that disturb results least, judged by accuracy. Then, where channels differ most (depthwise
        convolutions), bias correction and equalisation. Then the fewest layers leave INT8.

        A budget is met where the drop and its standard error together are within it: of several attempts the luckiest
        is taken, and on other images its luck is gone. With more than half of its layers out of INT8 it is given up.
        """
        best = min((self._try(_Form(model, table, table.method)) for table in tables[:_BEST_METHODS]), key=_loss)
        if best.loss > self.budget and best.mix.table.last_in_int8():
            bare = best.mix.table.with_last_in_float()
            best = self._try(_Form(model, bare, f"{bare.method}, last layers in float"))
        losses: tuple[LayerLoss, ...] = ()
        if best.loss > self.budget and has_depthwise(model):
            best = min([best, *self._mended(model, seen, best.form)], key=_loss)
        if best.loss > self.budget:
            losses = self._losses(best.form, seen)
            out = set(best.mix.returned)
            best = self._fewest(best.form, [loss for loss in losses if out.isdisjoint(loss.layers)])
        met = best.loss <= self.budget
        return best.mix if met else None, self._report(losses, best, None if met else self._missed(best))

    def _try(self, form: _Form, more: tuple[str, ...] = ()) -> _Tried:
        """``more``: layers out of INT8, beside the first ones if the table says so."""
        returned = tuple(dict.fromkeys((*form.table.first_in_float(), *more)))
        mixed = self._mix(form, returned)
        losses = self.judge.losses(self.graphs(mixed))
        worst = max(losses.values(), key=lambda loss: loss.drop + loss.error)
        attempt = Attempt(
            what=form.what,
            returned=len(self._layers(form.model)) - len(self._layers(form.model, returned)),
            accuracy=worst.accuracy,
            drop=worst.drop,
            error=worst.error,
            drop_low=worst.low,
            drop_high=worst.high,
        )
        self.attempts.append(_Tried(form, mixed, attempt, len(self.attempts)))
        self.watcher.say(
            f"INT8 by {form.what}, {attempt.returned} layers out of it: {attempt.accuracy.value:.1%}, "
            f"{attempt.drop:+.2%} lost, give or take {attempt.error:.2%}"
        )
        return self.attempts[-1]

    def _mix(self, form: _Form, returned: tuple[str, ...]) -> Mix:
        """With a layer's own bias wherever it is not INT8: its weights are not rounded then."""
        floats = self._in_float(form.model, returned)
        biases = {name: bias for name, bias in form.biases.items() if name not in floats}
        return Mix(with_biases(form.model, biases), form.table, returned)

    def _in_float(self, model: onnx.ModelProto, returned: Collection[str]) -> frozenset[str]:
        """Layers that could be INT8 and are not. What `searched` says of a layer counts before what the whole says."""
        found: frozenset[str] = frozenset()
        for graph in (model.graph, self.searched(model).graph):
            wiring = Wiring(graph)
            every, quantised = (
                {wiring.nodes[position].output[0] for position in placement.layers}
                for placement in (place(wiring, "tensorrt"), place(wiring, self.target, returned))
            )
            found = (found - every) | (every - quantised)
        return found

    def _mended(self, model: onnx.ModelProto, seen: Observation, form: _Form) -> Sequence[_Tried]:
        biases = corrected_biases(model, seen.probes)
        corrected = self._try(_Form(model, form.table, f"{form.what}, biases corrected", biases))
        if corrected.loss <= self.budget:
            return [corrected]
        equal = equalise(model, seen.probes)
        again, tables = self.tables(equal)
        what = f"{tables[0].method}, channels equalised, biases corrected"
        bare = tables[0].with_last_in_float()
        return [corrected, self._try(_Form(equal, bare, what, corrected_biases(equal, again.probes)))]

    def _losses(self, form: _Form, seen: Observation) -> tuple[LayerLoss, ...]:
        self.watcher.say("looking for the layers that INT8 harms")
        return layer_losses(self.searched(form.model), form.table, self.target, seen.probes[:_LOOKED_AT])

    def _fewest(self, form: _Form, losses: Sequence[LayerLoss]) -> _Tried:
        """The shortest beginning of the losses that does it, without whatever of it is not needed after all.

        Where none does, the nearest of all attempts.
        """

        def without(groups: Sequence[LayerLoss]) -> _Tried:
            return self._try(form, tuple(name for group in groups for name in group.layers))

        few, many = 0, self._most(form.model, losses) + 1
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
            return min(self.attempts, key=_loss)
        kept = list(losses[:many])
        for group in kept[-2::-1]:
            tried = without([one for one in kept if one is not group])
            if tried.loss <= self.budget:
                best = tried
                kept.remove(group)
        return best

    def _layers(self, model: onnx.ModelProto, returned: Collection[str] = ()) -> frozenset[str]:
        """The layers that are INT8, by the tensor they make. ONNX Runtime takes some of their neighbours along."""
        wiring = Wiring(self.searched(model).graph)
        return frozenset(wiring.nodes[position].output[0] for position in place(wiring, self.target, returned).layers)

    def _most(self, model: onnx.ModelProto, losses: Sequence[LayerLoss]) -> int:
        """How many of the most harmful groups may leave INT8 at most."""

        def left(size: int) -> int:
            in_int8 = self._layers(model, [name for loss in losses[:size] for name in loss.layers])
            return sum(not in_int8.isdisjoint(loss.layers) for loss in losses)

        return sum(left(size) >= len(losses) * (1 - _MOST_RETURNED) for size in range(1, len(losses) + 1))

    def _missed(self, nearest: _Tried) -> str:
        attempt, layers = nearest.attempt, len(self._layers(nearest.mix.model))
        mixed = f"{attempt.what}, {attempt.returned} of {layers} layers out of INT8"
        return (
            f"INT8 loses more than {self.budget:.2%} of {self.judge.what} on {self.judge.images} images: the nearest "
            f"of {len(self.attempts)} attempts ({mixed}) loses {attempt.drop:.2%}, give or take {attempt.error:.2%}"
        )

    def _report(self, losses: Sequence[LayerLoss], chosen: _Tried, missed: str | None) -> Guard:
        in_int8 = self._layers(chosen.mix.model, chosen.mix.returned)
        return Guard(
            max_accuracy_drop=self.budget,
            metric=self.judge.what,
            images=self.judge.images,
            fp32=dict(self.judge.exact),
            attempts=tuple(tried.attempt for tried in self.attempts),
            taken=chosen.number,
            layers=tuple(
                LayerNote(
                    layers=loss.layers,
                    snr_db=loss.snr_db,
                    latency_cost=loss.latency,
                    returned=in_int8.isdisjoint(loss.layers),
                )
                for loss in losses
            ),
            returned_to="fp16" if self.target == "tensorrt" else "fp32",
            missed=missed,
        )


def _loss(tried: _Tried) -> float:
    return tried.loss
