"""The accuracy guard: INT8 that misses its budget is mended as far as needed, and no further."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import onnx

from edgetl.artifacts.accuracy_control_record import (
    AccuracyControlAttempt,
    AccuracyControlResult,
    LayerSensitivityRecord,
)
from edgetl.config import QdqFormat
from edgetl.graph.model import Wiring
from edgetl.graph.observe import Observation
from edgetl.graph.qdq_placement import place_qdq
from edgetl.graph.sensitivity import LayerSensitivity, layer_sensitivities
from edgetl.stages.accuracy_evaluator import AccuracyEvaluator
from edgetl.stages.quantization_variants import PrecisionAssignment, QuantizationVariant, SubgraphOf, whole_graph
from edgetl.stages.stage import ProgressReporter

_BEST_FORMS = 3
_LOOKED_AT = 16
_MOST_RETURNED = 0.5
"""The share of its layers that may leave INT8: with more, it is FP16 with some INT8 in it."""

Refine = Callable[[QuantizationVariant, Observation, QdqFormat], QuantizationVariant]
"""What can be made of a form before layers leave INT8."""


@dataclass(frozen=True)
class _Trial:
    """A form, some of its layers not in INT8, and what came of it; ``number`` is its position among the attempts."""

    variant: QuantizationVariant
    assignment: PrecisionAssignment
    attempt: AccuracyControlAttempt
    number: int

    @property
    def loss(self) -> float:
        return self.attempt.pessimistic_drop


@dataclass
class AccuracyControlSearch:
    """One search for the mix that meets a budget.

    ``refine``: what can be done to a form that loses too much. ``graphs``: what the judge is shown of a mix.
    ``subgraph``: the part of the graph in which layers are tried one by one.
    """

    evaluator: AccuracyEvaluator
    budget: float
    target: QdqFormat
    refine: Refine
    graphs: Callable[[PrecisionAssignment], Sequence[onnx.ModelProto]]
    reporter: ProgressReporter
    subgraph: SubgraphOf = whole_graph
    attempts: list[_Trial] = field(default_factory=list)

    def search(
        self, seen: Observation, forms: Sequence[QuantizationVariant]
    ) -> tuple[PrecisionAssignment | None, AccuracyControlResult]:
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
        if best.loss > self.budget and best.assignment.table.last_in_int8():
            bare = replace(best.variant, table=best.assignment.table.with_last_in_float())
            best = self._try(replace(bare, description=f"{bare.description}, last layers in float"))
        if best.loss > self.budget and all(form.images is None for form in forms):
            best = min(best, self._try(self.refine(best.variant, seen, self.target)), key=_loss)
        losses: tuple[LayerSensitivity, ...] = ()
        if best.loss > self.budget:
            losses = self._losses(best.variant, seen)
            out = set(best.assignment.excluded)
            best = self._fewest(best.variant, [loss for loss in losses if out.isdisjoint(loss.layers)])
        met = best.loss <= self.budget
        return best.assignment if met else None, self._report(losses, best, None if met else self._missed(best))

    def _try(self, form: QuantizationVariant, more: tuple[str, ...] = ()) -> _Trial:
        """``more``: layers out of INT8, beside the first ones if the table says so."""
        mixed = form.assign_precision(self.target, more, self.subgraph)
        losses = self.evaluator.drops(self.graphs(mixed))
        worst = max(losses.values(), key=lambda loss: loss.drop + loss.error)
        attempt = AccuracyControlAttempt(
            variant=form.description,
            excluded=len(self._layers(form.model)) - len(self._layers(form.model, mixed.excluded)),
            accuracy=worst.accuracy,
            drop=worst.drop,
            standard_error=worst.error,
            drop_low=worst.low,
            drop_high=worst.high,
        )
        self.attempts.append(_Trial(form, mixed, attempt, len(self.attempts)))
        self.reporter.message(
            f"INT8 by {form.description}, {attempt.excluded} layers out of it: {attempt.accuracy.value:.1%}, "
            f"{attempt.drop:+.2%} lost, give or take {attempt.standard_error:.2%}"
        )
        return self.attempts[-1]

    def _losses(self, form: QuantizationVariant, seen: Observation) -> tuple[LayerSensitivity, ...]:
        self.reporter.message("looking for the layers that INT8 harms")
        fitted = form.assign_precision(self.target, subgraph=self.subgraph).model
        return layer_sensitivities(self.subgraph(fitted), form.table, self.target, seen.probes[:_LOOKED_AT])

    def _fewest(self, form: QuantizationVariant, losses: Sequence[LayerSensitivity]) -> _Trial:
        """The shortest beginning of the losses that does it, without whatever of it is not needed after all.

        Where none does, the nearest of all attempts.
        """

        def without(groups: Sequence[LayerSensitivity]) -> _Trial:
            return self._try(form, tuple(name for group in groups for name in group.layers))

        few, many = 0, self._most(form.model, losses) + 1
        best: _Trial | None = None
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

    def _layers(self, model: onnx.ModelProto, excluded: Collection[str] = ()) -> frozenset[str]:
        """The layers that are INT8, by the tensor they make. ONNX Runtime takes some of their neighbours along."""
        wiring = Wiring(self.subgraph(model).graph)
        return frozenset(
            wiring.nodes[position].output[0] for position in place_qdq(wiring, self.target, excluded).layers
        )

    def _most(self, model: onnx.ModelProto, losses: Sequence[LayerSensitivity]) -> int:
        """How many of the most harmful groups may leave INT8 at most."""

        def left(size: int) -> int:
            in_int8 = self._layers(model, [name for loss in losses[:size] for name in loss.layers])
            return sum(not in_int8.isdisjoint(loss.layers) for loss in losses)

        return sum(left(size) >= len(losses) * (1 - _MOST_RETURNED) for size in range(1, len(losses) + 1))

    def _missed(self, nearest: _Trial) -> str:
        attempt, layers = nearest.attempt, len(self._layers(nearest.assignment.model))
        mixed = f"{attempt.variant}, {attempt.excluded} of {layers} layers out of INT8"
        return (
            f"INT8 loses more than {self.budget:.2%} of {self.evaluator.metric} on {self.evaluator.images} images: "
            f"the nearest of {len(self.attempts)} attempts ({mixed}) loses {attempt.drop:.2%}, "
            f"give or take {attempt.standard_error:.2%}"
        )

    def _report(self, losses: Sequence[LayerSensitivity], chosen: _Trial, missed: str | None) -> AccuracyControlResult:
        in_int8 = self._layers(chosen.assignment.model, chosen.assignment.excluded)
        return AccuracyControlResult(
            max_accuracy_drop=self.budget,
            metric=self.evaluator.metric,
            images=self.evaluator.images,
            fp32=dict(self.evaluator.fp32),
            attempts=tuple(tried.attempt for tried in self.attempts),
            chosen=chosen.number,
            layers=tuple(
                LayerSensitivityRecord(
                    layers=loss.layers,
                    snr_db=loss.snr_db,
                    latency_cost=loss.latency,
                    excluded=in_int8.isdisjoint(loss.layers),
                )
                for loss in losses
            ),
            excluded_precision="fp16" if self.target == "tensorrt" else "fp32",
            why_not_met=missed,
        )


def _loss(tried: _Trial) -> float:
    return tried.loss
