"""Histograms of a tensor's magnitudes in bounded memory, the same for any order and batching of the values."""

from __future__ import annotations

import numpy as np

from edgetl.arrays import Float32Array, Int64Array

BINS = 4096
"""Bins of a histogram of magnitudes: 16 to 32 for each INT8 step where nothing is clipped."""

# Smaller magnitudes fall into the first bin; the exponent could not fall without an end for zeros.
_LOWEST_EXPONENT = -100


class Histogram:
    """Counts of a tensor's magnitudes in ``BINS`` equal bins from 0 to ``2**exponent``, and its extremes with sign.

    A value beyond doubles the range, merging bins in pairs. Bin ends are multiples of a power of two, so the counts
    are exactly those of a histogram that had the final range from the start.
    """

    def __init__(self) -> None:
        self.exponent = _LOWEST_EXPONENT
        self.counts = np.zeros(BINS, np.int64)
        self.minimum = np.inf
        self.maximum = -np.inf

    def add(self, values: Float32Array) -> None:
        """Count finite values of any shape, at least one."""
        low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        # frexp gives magnitude < 2**exponent, strictly: the last bin never overflows. Zeros fit into any range.
        if largest := max(-low, high):
            self._widen_to(int(np.frexp(largest)[1]))
        bins = (np.abs(values.ravel()) * np.float32(BINS * 2.0**-self.exponent)).astype(np.intp)
        self.counts += np.bincount(bins, minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram, which may be widened for it."""
        exponent = max(self.exponent, other.exponent)
        self._widen_to(exponent)
        other._widen_to(exponent)
        self.counts += other.counts
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)

    def _widen_to(self, exponent: int) -> None:
        if not self.counts.any():  # nothing to merge, and from the lowest exponent it would take a hundred rounds
            self.exponent = max(self.exponent, exponent)
        while self.exponent < exponent:
            self.counts = np.concatenate([self.merged(BINS // 2), np.zeros(BINS // 2, np.int64)])
            self.exponent += 1

    def merged(self, bins: int) -> Int64Array:
        """The counts in fewer bins: ``bins`` divides ``BINS``."""
        counts: Int64Array = self.counts.reshape(bins, BINS // bins).sum(axis=1)
        return counts

    @property
    def width(self) -> float:
        """The width of a bin."""
        return float(2.0**self.exponent / BINS)
