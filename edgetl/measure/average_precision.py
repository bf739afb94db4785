"""Mean average precision as COCO computes it, overall, per group and per label, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgetl.arrays import BoolArray, Float64Array, Int32Array, Int64Array
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import Accuracy, AveragePrecision, LabelPrecision, MeanAveragePrecision
from edgetl.errors import EdgetlError
from edgetl.measure import bootstrap
from edgetl.measure.matching import IOU_THRESHOLDS, Matches

RESAMPLES = 1000
_RECALLS: Float64Array = np.linspace(0.0, 1.0, 101)
_TAILS = ((1 - bootstrap.CONFIDENCE) / 2, (1 + bootstrap.CONFIDENCE) / 2)
# Detections times samples in one pass: small enough that their running sums stay in a processor's cache.
_CELLS = 1 << 19


def ap50(matches: Matches) -> float:
    """Return mAP@0.5: the mean over the labels that have objects.

    Raises:
        EdgetlError: no image has an object.
    """
    once = np.ones((len(matches.objects), 1), dtype=np.int32)
    return float(_mean(precisions(matches, once, thresholds=1)[0, _with_objects(matches)])[0])


def mean_average_precision(matches: Matches, groups: Mapping[str, Sequence[str]]) -> AveragePrecision:
    """Return mAP@0.5 and mAP@[.5:.95] of all labels and of each group, and AP of each label.

    The figures are COCO's. For their intervals images are drawn with replacement, each with its matches, and AP is
    computed anew from those; a label with no object among them is left out of their mean. A label with no object at all
    has no AP, and a group of such labels is left out.

    AP takes the best precision beyond a recall, so it is higher where there are fewer objects: do not compare figures
    of test sets that differ much in size, whatever their intervals.

    Raises:
        EdgetlError: no image has an object.
    """
    scored = _with_objects(matches)
    sampled = precisions(matches, _samples(matches), len(IOU_THRESHOLDS))
    at_half, at_all = sampled[0], sampled.mean(axis=0)

    def of(labels: Sequence[int]) -> MeanAveragePrecision:
        objects = matches.objects[:, labels]
        return MeanAveragePrecision(ap50=_estimate(at_half[labels], objects), ap=_estimate(at_all[labels], objects))

    def of_label(label: int) -> LabelPrecision:
        objects = int(matches.objects[:, label].sum())
        one = of([label]) if objects else None
        return LabelPrecision(objects=objects, ap50=one and one.ap50, ap=one and one.ap)

    members = {name: [label for label in scored if matches.labels[label] in group] for name, group in groups.items()}
    return AveragePrecision(
        overall=of(scored),
        groups={name: of(labels) for name, labels in members.items() if labels},
        labels={name: of_label(label) for label, name in enumerate(matches.labels)},
    )


def map50_estimate(matches: Matches) -> AccuracyEstimate:
    """Return mAP@0.5 with its interval.

    Raises:
        EdgetlError: no image has an object.
    """
    return _estimate(_sampled(matches)[None], matches.objects)


def map50_drop(a: Matches, b: Matches) -> tuple[float, float, float, float]:
    """Return how far b's mAP@0.5 is below a's on the same images: the drop, its standard error, low and high.

    Raises:
        EdgetlError: no image has an object.
    """
    differences = _sampled(a) - _sampled(b)
    value, low, high = _interval(differences, (-1.0, 1.0), a.objects)
    return value, float(np.nanstd(differences[1:])), low, high


def map50_accuracy(matches: Matches, groups: Mapping[str, Sequence[str]]) -> Accuracy:
    """Return mAP@0.5 as the accuracy that a classification study has.

    Raises:
        EdgetlError: no image has an object.
    """
    return as_accuracy(mean_average_precision(matches, groups))


def as_accuracy(measured: AveragePrecision) -> Accuracy:
    """Return mAP@0.5 of what was measured as the accuracy that a classification study has."""
    return Accuracy(overall=measured.overall.ap50, groups={name: one.ap50 for name, one in measured.groups.items()})


@dataclass(frozen=True, eq=False)
class Map50Samples:
    """mAP@0.5 of the test set and of each one drawn from it, and the objects of each image and label."""

    values: Float64Array
    objects: Int64Array


def map50_samples(matches: Matches) -> Map50Samples:
    """Return mAP@0.5 of the test set itself, and of each one drawn from it.

    Raises:
        EdgetlError: no image has an object.
    """
    return Map50Samples(_sampled(matches), matches.objects)


def map50_difference(a: Map50Samples, b: Map50Samples) -> tuple[float, float, float]:
    """Return the difference in mAP@0.5 and its interval, both on the same drawn images."""
    if not np.array_equal(a.objects, b.objects):
        raise ValueError("the two were matched to different objects")
    return _interval(a.values - b.values, (-1.0, 1.0), a.objects)


def _with_objects(matches: Matches) -> list[int]:
    """Return the positions of the labels that have objects."""
    labels: list[int] = np.flatnonzero(matches.objects.any(axis=0)).tolist()
    if not labels:
        raise EdgetlError("no image has an object of the study's labels, so there is no mAP; add images that have one")
    return labels


def _samples(matches: Matches) -> Int32Array:
    """Return N x (1 + `RESAMPLES`): how often each image is in the test set itself, then in each set drawn from it."""
    n = len(matches.objects)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.int32)
    return np.concatenate([np.ones((n, 1), dtype=np.int32), drawn.T], axis=1)


def _sampled(matches: Matches) -> Float64Array:
    """Return mAP@0.5 of the test set itself, and of each one drawn from it."""
    return _mean(precisions(matches, _samples(matches), thresholds=1)[0, _with_objects(matches)])


def _mean(sampled: Float64Array) -> Float64Array:
    """Return the mean of labels x samples over the labels that a sample has; NaN where it has none."""
    there = ~np.isnan(sampled)
    total: Float64Array = np.where(there, sampled, 0.0).sum(axis=0)
    result: Float64Array = np.divide(total, there.sum(axis=0), out=np.full_like(total, np.nan), where=there.any(axis=0))
    return result


def _estimate(sampled: Float64Array, objects: Int64Array) -> AccuracyEstimate:
    value, low, high = _interval(_mean(sampled), (0.0, 1.0), objects)
    return AccuracyEstimate(value=value, low=low, high=high, n=len(objects))


def _interval(sampled: Float64Array, bounds: tuple[float, float], objects: Int64Array) -> tuple[float, float, float]:
    """Return the figure of the test set, which comes first, and its interval from the samples after it.

    AP of images of which some are drawn twice is on average above AP of those they are drawn from. The percentile
    interval is moved back by that (the bootstrap's estimate of bias: Efron & Tibshirani 1993, chapter 10): it says how
    far other test sets of so many images may give another figure.
    """
    value, drawn = float(sampled[0]), sampled[1:][~np.isnan(sampled[1:])]
    low, high = np.quantile(drawn, _TAILS) - (drawn.mean() - value)
    # Where nearly all samples give the same figure, the bootstrap shows no doubt. But the test set may have none of the
    # images that would change it: the exact bound of `mean_of_hits` says how common those can be, among images that
    # have objects.
    if high - low < 1e-9:
        unseen = bootstrap.mean_of_hits(np.zeros(int(objects.any(axis=1).sum()), dtype=np.bool_)).high
        low, high = value - unseen, value + unseen
    return value, max(bounds[0], min(value, float(low))), min(bounds[1], max(value, float(high)))


def precisions(matches: Matches, samples: Int32Array, thresholds: int) -> Float64Array:
    """Return AP at the first IoU thresholds: thresholds x labels x samples; NaN where a sample has no object.

    Args:
        matches: of N images.
        samples: N x samples, how often each image is there; its copies' detections follow one another.
        thresholds: how many, up to T.
    """
    objects: Float64Array = matches.objects.T.astype(np.float64) @ samples
    result = np.zeros((thresholds, *objects.shape))
    for label, (start, stop) in enumerate(pairwise(matches.spans)):
        right, ignored = matches.right[:thresholds, start:stop], matches.ignored[:thresholds, start:stop]
        # What comes after the last right detection changes nothing.
        images = matches.images[start:stop][: np.flatnonzero(right.any(axis=0)).max(initial=-1) + 1]
        width = max(1, _CELLS // max(1, len(images)))
        for first in range(0, samples.shape[1], width):
            some = slice(first, first + width)
            result[:, label, some] = _areas(samples[images, some], right, ignored, objects[label, some])
    result[:, objects == 0] = np.nan
    return result


def _areas(counts: Int32Array, right: BoolArray, ignored: BoolArray, objects: Float64Array) -> Float64Array:
    """Return the area under precision over recall: thresholds x samples.

    At each of 101 recalls it takes the highest precision there or beyond, as PASCAL VOC interpolates (Everingham et al.
    2010) and COCO samples. Recall grows at right detections only, so nothing is computed at others.

    Args:
        counts: detections x samples, how often each is there; by falling score.
        right: thresholds x detections or more.
        ignored: thresholds x detections or more.
        objects: of each sample.
    """
    result = np.zeros((len(right), counts.shape[1]))
    running = counts.cumsum(axis=0, dtype=np.int32)
    for threshold, hits in enumerate(map(np.flatnonzero, right)):
        found = counts[hits].cumsum(axis=0, dtype=np.int32)
        # Ignored detections are no errors: those before each hit are taken out of the detections seen so far.
        aside = np.flatnonzero(ignored[threshold, : len(counts)])
        skipped = np.zeros((len(aside) + 1, counts.shape[1]), dtype=np.int32)
        counts[aside].cumsum(axis=0, dtype=np.int32, out=skipped[1:])
        seen = running[hits] - skipped[np.searchsorted(aside, hits)]
        best = np.maximum.accumulate((found / np.maximum(seen, 1))[::-1], axis=0)[::-1]
        # How many of the 101 recalls are reached. They are evenly spaced, so only the nearest is in question; it is
        # compared with the table's own number, because COCO's figures depend on how those are rounded.
        recall = found / np.maximum(objects, 1.0)
        nearest = np.rint(recall * (len(_RECALLS) - 1)).astype(np.int64)
        reached = nearest + (_RECALLS[nearest] <= recall)
        result[threshold] = (best * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(_RECALLS)
    return result
