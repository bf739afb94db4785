"""How each metric is computed: its value and interval, and the paired interval of a difference.

For a metric of your own give `register_metric` a `Metric` and its `Computation`: study files can then name it. A new
one in this package is a `Metric` in `config/metrics.py` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from edgetl.artifacts.results import Accuracy, Comparison
from edgetl.config import METRICS, Metric
from edgetl.errors import EdgetlError
from edgetl.measure import accuracy, average_precision

Groups = Mapping[str, Sequence[str]]
"""The labels of each group."""


@dataclass(frozen=True)
class Computation:
    """How a metric is computed from a candidate's answers to the test images.

    For the task classify these are `accuracy.Answers`, for detect `matching.Matches`.

    Attributes:
        accuracy: value and interval, overall and by group.
        samples: what `difference` needs of a candidate, made once for all of its comparisons.
        difference: of two candidates' samples on the same images, a - b: the value and the ends of its 95 % interval.
    """

    accuracy: Callable[[Any, Groups], Accuracy]
    samples: Callable[[Any], Any]
    difference: Callable[[Any, Any], tuple[float, float, float]]

    def compare(self, answers: Mapping[str, Any]) -> tuple[Comparison, ...]:
        """Return the difference of every pair, with its interval, both on the same images."""
        samples = {title: self.samples(one) for title, one in answers.items()}
        comparisons = []
        for a, b in combinations(samples, 2):
            difference, low, high = self.difference(samples[a], samples[b])
            comparisons.append(Comparison(a=a, b=b, metric="accuracy", difference=difference, low=low, high=high))
        return tuple(comparisons)


COMPUTATIONS: dict[str, Computation] = {
    "top-1": Computation(accuracy.top1_accuracy, accuracy.hits, accuracy.top1_difference),
    "balanced-accuracy": Computation(accuracy.balanced_accuracy, accuracy.hits, accuracy.balanced_difference),
    "mAP@0.5": Computation(
        average_precision.map50_accuracy, average_precision.map50_samples, average_precision.map50_difference
    ),
}


def register_metric(metric: Metric, computation: Computation) -> None:
    """Add a metric, which study files can then name.

    Raises:
        EdgetlError: there is one of that name.
    """
    if metric.name in METRICS:
        raise EdgetlError(f"there is a metric {metric.name} already; choose another name")
    METRICS[metric.name], COMPUTATIONS[metric.name] = metric, computation
