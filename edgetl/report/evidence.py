"""The evidence for a verdict: candidates that were run, and the paired comparisons between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgetl.artifacts.results import Accuracy, Comparison, DeploymentResult, Latency
from edgetl.config import DEPLOYMENTS
from edgetl.report.deployment_names import deployment_of, is_frozen, is_tuned

_PRECISIONS = ("fp32", "fp16", "int8")

Simplicity = tuple[int, int, int, int, int, str]

# A proven gain in speed below this is too small to prefer one deployment to another.
LEAST_SPEEDUP = 1.05


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def includes(self, value: float) -> bool:
        return self.low <= value <= self.high

    def negated(self) -> Interval:
        return Interval(-self.value, -self.high, -self.low)

    def inverted(self) -> Interval:
        return Interval(1 / self.value, 1 / self.high, 1 / self.low)


@dataclass(frozen=True)
class Candidate:
    """A deployment in one precision that was run, so that its accuracy and latency are known."""

    row: DeploymentResult
    accuracy: Accuracy
    latency: Latency

    @property
    def title(self) -> str:
        return self.row.title

    @property
    def deployment(self) -> str:
        """Return the deployment without its cuts: ``branched`` for ``branched@features.7``."""
        return deployment_of(self.row.name)

    @property
    def frozen(self) -> bool:
        """Return whether nothing but heads was trained, and no layer was dropped."""
        return is_frozen(self.row.cuts)

    @property
    def overall_accuracy(self) -> float:
        """Return the accuracy over all labels, 0 to 1."""
        return self.accuracy.overall.value

    @property
    def simplicity(self) -> Simplicity:
        """Return a key for sorting: smaller is simpler.

        By number of engines, the deployment, the number of heads with layers tuned for them, the precision, FLOPs; and
        by title, so that the order is always the same.
        """
        return (
            len(self.row.engines),
            _rank(self.deployment, tuple(DEPLOYMENTS)),
            sum(is_tuned(cut) for cut in self.row.cuts.values()),
            _rank(self.row.precision, _PRECISIONS),
            self.row.flops or 0,
            self.title,
        )


def _rank(name: str, order: tuple[str, ...]) -> int:
    return order.index(name) if name in order else len(order)


def candidates(measured: Iterable[DeploymentResult]) -> tuple[Candidate, ...]:
    """Return the rows that were run, the simplest first."""
    run = (
        Candidate(row, row.accuracy, row.latency_ms)
        for row in measured
        if row.unsupported is None and row.accuracy is not None and row.latency_ms is not None
    )
    return tuple(sorted(run, key=lambda candidate: candidate.simplicity))


def most_accurate(group: Iterable[Candidate]) -> Candidate:
    """Return who has the highest overall accuracy; of equals the simplest."""
    return min(group, key=lambda candidate: (-candidate.overall_accuracy, candidate.simplicity))


class Pairs:
    """Paired comparisons by title, in whichever direction they were made."""

    def __init__(self, comparisons: Iterable[Comparison]) -> None:
        self._accuracy: dict[tuple[str, str], Interval] = {}
        self._latency: dict[tuple[str, str], Interval] = {}
        self._changed: set[frozenset[str]] = set()
        for pair in comparisons:
            if pair.metric == "accuracy" and pair.difference is not None:
                difference = Interval(pair.difference, pair.low, pair.high)
                # The reverse only where it was not measured itself.
                self._accuracy.setdefault((pair.b, pair.a), difference.negated())
                self._accuracy[pair.a, pair.b] = difference
            elif pair.metric == "latency" and pair.ratio is not None and min(pair.ratio, pair.low, pair.high) > 0.0:
                ratio = Interval(pair.ratio, pair.low, pair.high)
                self._latency.setdefault((pair.b, pair.a), ratio.inverted())
                self._latency[pair.a, pair.b] = ratio
                if pair.why_unstable is not None:
                    self._changed.add(frozenset({pair.a, pair.b}))

    def accuracy(self, a: Candidate, b: Candidate) -> Interval | None:
        """Return the accuracy of ``a`` minus that of ``b``, image by image; None where they were not compared."""
        return Interval(0.0, 0.0, 0.0) if a == b else self._accuracy.get((a.title, b.title))

    def speedup(self, a: Candidate, b: Candidate) -> Interval | None:
        """Return how many times as fast as ``b`` ``a`` is: latency of ``b`` over ``a``, by round; None if unknown."""
        return self._latency.get((b.title, a.title))

    def unstable(self, a: Candidate, b: Candidate) -> bool:
        """Return whether their ratio is UNSTABLE, so that nothing is proven of their speed.

        Their latencies may be so while it is not: a machine that slows down hits both of a round alike.
        """
        return frozenset({a.title, b.title}) in self._changed

    def proves_faster(self, a: Candidate, b: Candidate) -> bool:
        """Return whether a stable ratio's interval lies above 1 and the gain is large enough to matter."""
        speedup = self.speedup(a, b)
        if speedup is None or self.unstable(a, b):
            return False
        return speedup.low > 1.0 and speedup.value >= LEAST_SPEEDUP

    def proves_more_accurate(self, a: Candidate, b: Candidate) -> bool:
        difference = self.accuracy(a, b)
        return difference is not None and difference.low > 0.0
