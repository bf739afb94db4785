"""Accuracy control: the search for the fewest layers that must leave INT8 to keep accuracy within a budget."""

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

_BEST_VARIANTS = 3
_PROBES = 16  # images on which layers are ranked; each is run once for every group of layers
_MOST_EXCLUDED = 0.5
"""The largest share of layers that may leave INT8: with more, it is FP16 with some INT8 in it."""

Refine = Callable[[QuantizationVariant, Observation, QdqFormat], QuantizationVariant]
"""Makes a better variant (weights fitted, channels equalised) of one, before layers leave INT8."""


@dataclass(frozen=True)
class _Trial:
    """A variant with some layers out of INT8, and its accuracy; ``number`` is its position among the attempts."""

    variant: QuantizationVariant
    assignment: PrecisionAssignment
    attempt: AccuracyControlAttempt
    number: int

    @property
    def loss(self) -> float:
        return self.attempt.pessimistic_drop


@dataclass
class AccuracyControlSearch:
    """One search for a precision assignment that meets a budget.

    ``refine`` improves a variant that loses too much. ``graphs`` gives the graphs that the evaluator runs for an
    assignment. ``subgraph`` is the part of the graph in which layers are tried one by one.
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
        self, seen: Observation, variants: Sequence[QuantizationVariant]
    ) -> tuple[PrecisionAssignment | None, AccuracyControlResult]:
        """The first assignment that loses no more than the budget, cheapest remedy first; None if none does.

        First the variants that disturb results least are evaluated. Then, where weights are as they were, they are
        fitted, and channels equalised. Then the fewest layers leave INT8.

        A budget is met where the drop and its standard error together are within it: of several attempts the luckiest
        is taken, and on other images its luck is gone. With more than half of its layers out of INT8 it is given up.

        Args:
            seen: the images that variants were calibrated on.
            variants: of one graph, the best first.
        """
        best = min((self._try(variant) for variant in variants[:_BEST_VARIANTS]), key=_loss)
        # The cheapest remedy: it costs one attempt, and last layers are few.
        if best.loss > self.budget and best.assignment.table.last_in_int8():
            bare = replace(best.variant, table=best.assignment.table.with_last_in_float())
            best = self._try(replace(bare, description=f"{bare.description}, last layers in float"))
        if best.loss > self.budget and all(variant.images is None for variant in variants):  # not fitted already
            best = min(best, self._try(self.refine(best.variant, seen, self.target)), key=_loss)
        ranked: tuple[LayerSensitivity, ...] = ()
        if best.loss > self.budget:
            self.reporter.message("looking for the layers that INT8 harms")
            fitted = self.subgraph(best.variant.assign_precision(self.target, subgraph=self.subgraph).model)
            ranked = layer_sensitivities(fitted, best.variant.table, self.target, seen.probes[:_PROBES])
            out = set(best.assignment.excluded)
            best = self._fewest(best.variant, [layer for layer in ranked if out.isdisjoint(layer.layers)])
        return best.assignment if best.loss <= self.budget else None, self._report(ranked, best)

    def _try(self, variant: QuantizationVariant, more: tuple[str, ...] = ()) -> _Trial:
        """Evaluate a variant with the layers ``more`` out of INT8, beside the first ones if the table says so."""
        assignment = variant.assign_precision(self.target, more, self.subgraph)
        drops = self.evaluator.drops(self.graphs(assignment))
        worst = max(drops.values(), key=lambda loss: loss.drop + loss.error)
        attempt = AccuracyControlAttempt(
            variant=variant.description,
            excluded=len(self._layers(variant.model)) - len(self._layers(variant.model, assignment.excluded)),
            accuracy=worst.accuracy,
            drop=worst.drop,
            standard_error=worst.error,
            drop_low=worst.low,
            drop_high=worst.high,
        )
        self.attempts.append(_Trial(variant, assignment, attempt, len(self.attempts)))
        self.reporter.message(
            f"INT8 by {variant.description}, {attempt.excluded} layers out of it: {attempt.accuracy.value:.1%}, "
            f"{attempt.drop:+.2%} lost, give or take {attempt.standard_error:.2%}"
        )
        return self.attempts[-1]

    def _fewest(self, variant: QuantizationVariant, ranked: Sequence[LayerSensitivity]) -> _Trial:
        """The attempt with the fewest layers excluded that meets the budget: the most harmful ones, as few as will do.

        Where none meets it, the nearest of all attempts.
        """

        def without(groups: Sequence[LayerSensitivity]) -> _Trial:
            return self._try(variant, tuple(name for group in groups for name in group.layers))

        few, many = 0, 1
        for size in range(1, len(ranked) + 1):
            in_int8 = self._layers(variant.model, [name for group in ranked[:size] for name in group.layers])
            left = sum(not in_int8.isdisjoint(group.layers) for group in ranked)
            many += left >= len(ranked) * (1 - _MOST_EXCLUDED)
        best: _Trial | None = None
        while many - few > 1:
            # Mostly a few layers are enough: sizes double until they are, then the interval is halved.
            size = min(max(1, 2 * few), many - 1) if best is None else (few + many) // 2
            tried = without(ranked[:size])
            if tried.loss <= self.budget:
                best, many = tried, size
            else:
                few = size
        if best is None:
            return min(self.attempts, key=_loss)
        # The ranking measures layers alone; together, some are not needed. The last one is: without it, it was missed.
        kept = list(ranked[:many])
        for group in kept[-2::-1]:
            tried = without([one for one in kept if one is not group])
            if tried.loss <= self.budget:
                best = tried
                kept.remove(group)
        return best

    def _layers(self, model: onnx.ModelProto, excluded: Collection[str] = ()) -> frozenset[str]:
        """The layers in INT8, by the tensor they make; ONNX Runtime needs some neighbours of excluded ones out too."""
        wiring = Wiring(self.subgraph(model).graph)
        return frozenset(
            wiring.nodes[position].output[0] for position in place_qdq(wiring, self.target, excluded).layers
        )

    def _report(self, ranked: Sequence[LayerSensitivity], chosen: _Trial) -> AccuracyControlResult:
        missed, attempt = None, chosen.attempt
        if chosen.loss > self.budget:
            layers = len(self._layers(chosen.assignment.model))
            missed = (
                f"INT8 loses more than {self.budget:.2%} of {self.evaluator.metric} on {self.evaluator.images} images: "
                f"the nearest of {len(self.attempts)} attempts ({attempt.variant}, {attempt.excluded} of {layers} "
                f"layers out of INT8) loses {attempt.drop:.2%}, give or take {attempt.standard_error:.2%}"
            )
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
                for loss in ranked
            ),
            excluded_precision="fp16" if self.target == "tensorrt" else "fp32",
            why_not_met=missed,
        )


def _loss(tried: _Trial) -> float:
    return tried.loss
