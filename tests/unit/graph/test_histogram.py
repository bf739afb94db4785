"""Histograms of magnitudes: nothing but what was counted decides them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetl.graph.histogram import BINS, Histogram

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(parts=st.lists(arrays(np.float32, st.integers(1, 30), elements=finite), min_size=1, max_size=5))
def test_a_histogram_that_grew_equals_one_with_the_final_range(parts):
    grown = Histogram()
    for part in parts:
        grown.add(part)
    values = np.concatenate(parts).astype(np.float64)
    edges = np.ldexp(np.arange(BINS + 1) / BINS, grown.exponent)
    np.testing.assert_array_equal(grown.counts, np.histogram(np.abs(values), edges)[0])
    assert (grown.minimum, grown.maximum) == (values.min(), values.max())


def test_zeros_do_not_widen_the_range():
    small = np.float32([0.25, -0.1])
    alone, beside = Histogram(), Histogram()
    alone.add(small)
    beside.add(np.zeros(3, np.float32))
    beside.add(small)
    assert beside.exponent == alone.exponent == -1
    np.testing.assert_array_equal(beside.counts[1:], alone.counts[1:])
    assert beside.counts[0] == alone.counts[0] + 3


def test_a_histogram_does_not_grow_with_what_it_counts():
    histogram = Histogram()
    for seed in range(20):
        histogram.add(np.random.default_rng(seed).standard_cauchy(10_000).astype(np.float32))
    assert histogram.counts.nbytes == BINS * 8
    assert histogram.counts.sum() == 200_000


@settings(max_examples=50)
@given(parts=st.lists(arrays(np.float32, st.integers(1, 30), elements=finite), min_size=1, max_size=5), data=st.data())
def test_histograms_add_up_to_one_of_everything_in_any_order(parts, data):
    whole, merged = Histogram(), Histogram()
    whole.add(np.concatenate(parts))
    for part in data.draw(st.permutations(parts)):
        one = Histogram()
        one.add(part)
        merged.merge(one)
    np.testing.assert_array_equal(merged.counts, whole.counts)
    assert (merged.exponent, merged.minimum, merged.maximum) == (whole.exponent, whole.minimum, whole.maximum)
