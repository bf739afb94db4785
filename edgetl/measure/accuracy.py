"""Top-1 accuracy and balanced accuracy, overall and per group, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import Accuracy
from edgetl.measure import bootstrap


@dataclass(frozen=True, eq=False)
class Answers:
    """A classifier's answers to N images: N x labels probabilities, N positions of the right labels, and the labels."""

    probabilities: Float32Array
    truth: Int64Array
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Hits:
    """For each of N images whether the answer is right, and the position of the right label."""

    right: BoolArray
    truth: Int64Array


def hits(answers: Answers) -> Hits:
    """Return for each image whether the most probable label is the right one, all labels competing."""
    return Hits(answers.probabilities.argmax(axis=1) == answers.truth, answers.truth)


def top1_accuracy(answers: Answers, groups: Mapping[str, Sequence[str]]) -> Accuracy:
    """Return top-1 accuracy as `accuracy_by` does."""
    return accuracy_by(lambda some: bootstrap.mean_of_hits(some.right), answers, groups)


def top1_difference(a: Hits, b: Hits) -> tuple[float, float, float]:
    """Return the difference in top-1 accuracy on the same images, and its interval."""
    return bootstrap.paired_difference(a.right, b.right)


def balanced_accuracy(answers: Answers, groups: Mapping[str, Sequence[str]]) -> Accuracy:
    """Return the mean recall over labels (Brodersen et al. 2010) as `accuracy_by` does.

    Labels without an image are left out. Its interval is that of images drawn
    with replacement; a label that is not among them is left out of their mean.
    """
    return accuracy_by(_balanced, answers, groups)


def balanced_difference(a: Hits, b: Hits) -> tuple[float, float, float]:
    """Return the difference in mean recall on the same images, and its interval, of images drawn with replacement."""
    return _mean_over_labels(a.right.astype(np.int64) - b.right, a.truth)


def accuracy_by(
    estimate: Callable[[Hits], AccuracyEstimate], answers: Answers, groups: Mapping[str, Sequence[str]]
) -> Accuracy:
    """Return an accuracy overall, per group with all labels competing, and per group masked to the group's own labels.

    Masked accuracy answers "which of these five?" where it is known that it is one of the five; a specialist
    looks better by it than it will be in the field. A group with no test image is left out.
    """
    everywhere, unmasked, masked = hits(answers), {}, {}
    for group, members in groups.items():
        columns = np.array([answers.labels.index(label) for label in members])
        inside = np.isin(answers.truth, columns)
        if inside.any():
            truth = answers.truth[inside]
            unmasked[group] = estimate(Hits(everywhere.right[inside], truth))
            own = columns[answers.probabilities[inside][:, columns].argmax(axis=1)]
            masked[group] = estimate(Hits(own == truth, truth))
    return Accuracy(overall=estimate(everywhere), groups=unmasked, masked=masked)


def _balanced(some: Hits) -> AccuracyEstimate:
    value, low, high = _mean_over_labels(some.right.astype(np.int64), some.truth)
    return AccuracyEstimate(value=value, low=max(0.0, low), high=min(1.0, high), n=len(some.truth))


def _mean_over_labels(outcomes: Int64Array, truth: Int64Array) -> tuple[float, float, float]:
    """Return the mean over labels of the mean outcome (-1, 0 or 1) of a label's images, and its interval."""
    labels, position, images = np.unique(truth, return_inverse=True, return_counts=True)
    # Drawing images with replacement is drawing from a multinomial over labels x outcomes.
    counts = np.zeros((len(labels), 3), np.int64)
    np.add.at(counts, (position, outcomes + 1), 1)
    value = float(((counts[:, 2] - counts[:, 0]) / images).mean())
    if (counts.max(axis=1) == images).all():
        # All samples are alike. The bound of `mean_of_hits` holds as if each label had as many images as the rarest.
        slack = bootstrap.unseen(int(images.min()) * len(labels))
        return value, value - slack, value + slack
    draws = np.random.default_rng(0).multinomial(len(truth), counts.ravel() / len(truth), bootstrap.RESAMPLES)
    drawn: Float64Array = draws.reshape(-1, *counts.shape).astype(np.float64)
    there = drawn.sum(axis=2)
    means = np.divide(drawn[:, :, 2] - drawn[:, :, 0], there, out=np.full_like(there, np.nan), where=there > 0)
    low, high = np.percentile(np.nanmean(means, axis=1), bootstrap.TAILS)
    return value, float(low), float(high)
