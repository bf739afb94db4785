"""The accuracy guard: INT8 that misses its budget is mended as far as needed, and no further."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import onnx

from edgetl.artifacts.guard import Attempt, Guard, LayerNote
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation
from edgetl.graph.placement import Target, place
from edgetl.graph.sensitivity import LayerLoss, layer_losses
from edgetl.stages.forms import Form, Mix, Part, as_it_is
from edgetl.stages.judging import Judge
from edgetl.stages.stage import Watcher

_BEST_FORMS = 3
_LOOKED_AT = 16
_MOST_RETURNED = 0.5
"""The share of its layers that may leave INT8: with more, it is FP16 with some INT8 in it."""

Mend = Callable[[Form, Observation, Target], Form]
"""What can be made of a form before layers leave INT8."""


@dataclass(frozen=True)
class _Tried:
    """A form, some of its layers not in INT8, and what came of it; ``number`` is its position among the attempts."""

    form: Form
    mix: Mix
    attempt: Attempt
    number: int

    @property
    def loss(self) -> float:
        return self.attempt.loss


@dataclass
class Guarding:
    """One search for the mix that meets a budget.

    ``mend``: what can be done to a form that loses too much. ``graphs``: what the judge is shown of a mix.
    ``searched``: the part of the graph in which layers are tried one by one.
    """

    judge: Judge
    budget: float
    target: Target
    mend: Mend
    graphs: Callable[[Mix], Sequence[onnx.ModelProto]]
    watcher: Watcher
    searched: Part = as_it_is
    attempts: list[_Tried] = field(default_factory=list)

    def search(self, seen: Observation, forms: Sequence[Form]) -> tuple[Mix | None, Guard]:
        """The first mix that loses no more than the budget, from the cheapest remedy to the dearest; None if none does.

        First the forms that disturb results least, judged by accuracy. Then, where weights are as they were, they are
        fitted, and channels equalised. Then the fewest layers leave INT8.

        A budget is met where the drop and its standard error together are within it: of several attempts the luckiest
        is taken, and on other images its luck is gone. With more than half of its layers out of INT8 it is given up.

        Args:
            seen: the images that forms were calibrated on.
            forms: of one graph, the best first.
        """
        best = min((self._try(form) for form in forms[:_BEST_FORMS]), key=_loss)
        if best.loss > self.budget and best.mix.table.last_in_int8():
            bare = replace(best.form, table=best.mix.table.with_last_in_float())
            best = self._try(replace(bare, what=f"{bare.what}, last layers in float"))
        if best.loss > self.budget and all(form.images is None for form in forms):
            best = min(best, self._try(self.mend(best.form, seen, self.target)), key=_loss)
        losses: tuple[LayerLoss, ...] = ()
        if best.loss > self.budget:
            losses = self._losses(best.form, seen)
            out = set(best.mix.returned)
            best = self._fewest(best.form, [loss for loss in losses if out.isdisjoint(loss.layers)])
        met = best.loss <= self.budget
        return best.mix if met else None, self._report(losses, best, None if met else self._missed(best))

    def _try(self, form: Form, more: tuple[str, ...] = ()) -> _Tried:
        """``more``: layers out of INT8, beside the first ones if the table says so."""
        mixed = form.mix(self.target, more, self.searched)
        losses = self.judge.losses(self.graphs(mixed))
        worst = max(losses.values(), key=lambda loss: loss.drop + loss.error)
        attempt = Attempt(
            what=form.what,
            returned=len(self._layers(form.model)) - len(self._layers(form.model, mixed.returned)),
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

    def _losses(self, form: Form, seen: Observation) -> tuple[LayerLoss, ...]:
        self.watcher.say("looking for the layers that INT8 harms")
        fitted = form.mix(self.target, searched=self.searched).model
        return layer_losses(self.searched(fitted), form.table, self.target, seen.probes[:_LOOKED_AT])

    def _fewest(self, form: Form, losses: Sequence[LayerLoss]) -> _Tried:
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
