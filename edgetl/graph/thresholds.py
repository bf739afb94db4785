"""Where to clip a tensor, by each calibration method, all from the same histogram of its magnitudes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgetl.arrays import Float64Array, Int64Array
from edgetl.graph.histogram import BINS, Histogram

_LEVELS = 127
_MANTISSA_BITS = 8
_SCORE_BITS = 10

# Clipping thresholds that mse tries: five octaves below the largest magnitude, in steps of 1/16 octave.
_CANDIDATES = np.exp2(-np.arange(5 * 16 + 1) / 16)

# Entropy compares 128 levels with at most 2048 bins, as Migacz does; every eighth bin end is tried.
_ENTROPY_BINS = 2048
_ENTROPY_LEVELS = 128
_ENTROPY_STRIDE = 8


def threshold(histogram: Histogram, method: str) -> float:
    """The largest magnitude that is kept, never beyond the largest that was seen.

    Args:
        method: ``max``, ``mse``, ``entropy``, or ``percentile P``.

    Rounded to 8 mantissa bits: other processors sum in other orders, and a noise of 1e-6 should not make another table.
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
    """The value with so many mantissa bits."""
    mantissa, exponent = np.frexp(value)
    return float(np.ldexp(np.rint(np.ldexp(mantissa, bits)), int(exponent) - bits)) + 0.0


def percentile(histogram: Histogram, share: float) -> float:
    """The upper end of the bin that the percentile of the magnitudes falls in."""
    below = np.cumsum(histogram.counts)
    wanted = int(np.ceil(below[-1] * (share / 100)))
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
    """The threshold at which 128 levels tell least apart from the clipped magnitudes, by Kullback-Leibler divergence.

    Migacz, "8-bit Inference with TensorRT", GTC 2017. Values near 0 are counted as if they were as frequent as those
    of the next bin, because the zeros behind a Relu would drown all else.
    """
    counts = histogram.merged(_ENTROPY_BINS).astype(np.float64)
    counts[0] = counts[1]
    if not counts.any():
        return float(BINS * histogram.width)
    last = int(np.flatnonzero(counts)[-1]) + 1
    ends = np.arange(_ENTROPY_LEVELS, max(last, _ENTROPY_LEVELS) + _ENTROPY_STRIDE, _ENTROPY_STRIDE)
    ends = ends[::-1].clip(max=_ENTROPY_BINS)  # of equals the widest
    divergences = np.fromiter(_divergences(counts, ends), np.float64, len(ends))
    return float(ends[_least(divergences)] * histogram.width * (BINS // _ENTROPY_BINS))


def _divergences(counts: Float64Array, ends: Int64Array) -> Iterator[float]:
    for end in ends:
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
        yield float((p * np.log(p / q)).sum())


def _least(scores: Float64Array) -> int:
    """The first of the least, where differences as small as the noise of counting are none."""
    return int(np.argmin([rounded(score, _SCORE_BITS) for score in scores]))
