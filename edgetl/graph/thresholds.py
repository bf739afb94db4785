"""The clipping threshold of a tensor by each calibration method, all from the same histogram of magnitudes."""

from __future__ import annotations

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.graph.histogram import BINS, Histogram

_LEVELS = 127
_MANTISSA_BITS = 8
# Coarser than the noise of counting, so that noise does not decide between thresholds that are equally good.
_SCORE_BITS = 10

# Clipping thresholds that mse tries: five octaves below the largest magnitude, in steps of 1/16 octave.
_CANDIDATES = np.exp2(-np.arange(5 * 16 + 1) / 16)

# Entropy compares 128 levels with at most 2048 bins, as Migacz does; every eighth bin end is tried.
_ENTROPY_BINS = 2048
_ENTROPY_LEVELS = 128
_ENTROPY_STRIDE = 8


def threshold(histogram: Histogram, method: str) -> float:
    """The magnitude at which a method clips a tensor, at most the largest that was observed.

    It is rounded to 8 mantissa bits, because other processors sum in other orders, and noise of 1e-6 should not make
    another table.

    Args:
        method: ``max``, ``mse``, ``entropy``, or ``percentile P``.
    """
    amax = rounded(max(-histogram.minimum, histogram.maximum))
    name, _, argument = method.partition(" ")
    if name == "percentile":
        return rounded(min(amax, percentile(histogram, float(argument))))
    if name == "mse":
        return rounded(least_squares(histogram, amax))
    if name == "entropy":
        return rounded(min(amax, least_divergence(histogram)))
    return amax


def rounded(value: float, bits: int = _MANTISSA_BITS) -> float:
    """The value rounded to so many mantissa bits."""
    mantissa, exponent = np.frexp(value)
    return (
        float(np.ldexp(np.rint(np.ldexp(mantissa, bits)), int(exponent) - bits)) + 0.0
    )  # no -0.0: it would be other bytes in a table


def percentile(histogram: Histogram, percent: float) -> float:
    """The upper end of the bin that contains the percentile of the magnitudes."""
    below = np.cumsum(histogram.counts)
    wanted = int(np.ceil(below[-1] * (percent / 100)))
    return float((np.searchsorted(below, wanted) + 1) * histogram.width)


def least_squares(histogram: Histogram, amax: float) -> float:
    """The threshold with the least expected squared error of symmetric INT8 (127 steps), over bin centres."""
    if not amax:
        return 0.0
    occupied = np.flatnonzero(histogram.counts)
    centres = (occupied + 0.5) * histogram.width
    thresholds = amax * _CANDIDATES
    steps = thresholds[:, None] / _LEVELS
    restored = np.minimum(np.rint(centres / steps), _LEVELS) * steps
    errors = (np.square(centres - restored) * histogram.counts[occupied]).sum(axis=1)
    return float(thresholds[_least(errors)])


def least_divergence(histogram: Histogram) -> float:
    """The threshold whose 128 levels have the least Kullback-Leibler divergence from the clipped magnitudes.

    Migacz, "8-bit Inference with TensorRT", GTC 2017.
    """
    counts = histogram.merged(_ENTROPY_BINS).astype(np.float64)
    counts[0] = counts[1]  # the zeros behind a Relu would drown all else
    if not counts.any():
        return float(BINS * histogram.width)
    last = int(np.flatnonzero(counts)[-1]) + 1
    ends = np.arange(_ENTROPY_LEVELS, max(last, _ENTROPY_LEVELS) + _ENTROPY_STRIDE, _ENTROPY_STRIDE)
    ends = ends[::-1].clip(max=_ENTROPY_BINS)  # of equals the widest
    divergences = np.empty(len(ends))
    for position, end in enumerate(ends):
        kept = counts[:end]
        clipped = kept.copy()
        clipped[-1] += counts[end:].sum()
        starts = np.arange(_ENTROPY_LEVELS) * end // _ENTROPY_LEVELS
        widths = np.diff(np.append(starts, end))
        occupied = np.add.reduceat((clipped > 0).astype(np.float64), starts)
        levels = np.add.reduceat(kept, starts) / np.maximum(occupied, 1.0)
        spread = np.repeat(levels, widths)
        some = clipped > 0
        # A level of outliers alone has no value of its own below the threshold: next to impossible, not infinitely so.
        p, q = clipped[some] / clipped.sum(), np.maximum(spread[some] / kept.sum(), 1e-12) if kept.any() else 1.0
        divergences[position] = (p * np.log(p / q)).sum()
    return float(ends[_least(divergences)] * histogram.width * (BINS // _ENTROPY_BINS))


def _least(scores: Float64Array) -> int:
    """The position of the least score, and of the first one where scores differ by noise alone."""
    return int(np.argmin([rounded(score, _SCORE_BITS) for score in scores]))
