"""Calibration: the same bits every time, and thresholds that do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from edgetl.artifacts.files import sha256_bytes
from edgetl.config import Recipe
from edgetl.errors import EdgetlError
from edgetl.graph.calibrate import BINS, Histogram, _least_squares, _percentile, calibrate, quantisable_tensors
from edgetl.graph.model import model_bytes

METHODS = ["max", "percentile", "mse"]


def batches_of(images, size):
    return [images[start : start + size] for start in range(0, len(images), size)]


@pytest.mark.parametrize("method", METHODS)
def test_batch_size_and_order_do_not_change_a_bit_of_the_table(method, network, images, record):
    pictures, recipe = images(12), Recipe(method=method)
    tables = [calibrate(network, batches_of(pictures, size), recipe, record(12)) for size in (1, 3, 8)]
    shuffled = pictures[np.random.default_rng(1).permutation(12)]
    tables.append(calibrate(network, batches_of(shuffled, 5), recipe, record(12)))
    assert len({table.model_dump_json() for table in tables}) == 1


def test_the_table_names_its_graph_method_and_images_in_the_order_given(network, images, record):
    named = tuple(reversed(record(4)))
    table = calibrate(network, iter(batches_of(images(4), 2)), Recipe(method="percentile"), named)
    assert table.method == "percentile 99.99"
    assert table.graph_sha256 == sha256_bytes(model_bytes(network))
    assert table.images == named


def test_tensors_that_are_asked_for_get_the_ranges_that_they_have_among_all(network, images, record, table_for):
    """Graphs that are parts of one whole are calibrated in one pass over it."""
    every = quantisable_tensors(network)
    some = calibrate(network, [images(8)], Recipe(method="max"), record(8), every[3:6])
    whole = table_for(network).by_name()
    assert [one.name for one in some.tensors] == list(every[3:6])
    assert all(one == whole[one.name] for one in some.tensors)


def test_what_layers_read_and_make_is_calibrated_and_what_stays_in_float_is_not(network):
    kinds = {node.output[0]: node.op_type for node in network.graph.node}
    found = [kinds.get(name, name) for name in quantisable_tensors(network)]
    assert found[0] == "Div"  # the normalised image
    assert {"Relu", "Clip", "Add", "Concat"} <= set(found)
    # The raw image, values that MaxPool only passes on, pooled features and outputs.
    assert not {"images", "Sub", "MaxPool", "GlobalAveragePool", "Flatten", "Gemm", "Softmax"} & set(found)


def test_max_keeps_the_extremes_and_one_sided_tensors_start_at_zero(network, images, table_for):
    ranges = table_for(network).by_name()
    image = ranges[quantisable_tensors(network)[0]]
    normalised = (images(8) - 0.45) / 0.25
    assert image.minimum == pytest.approx(normalised.min(), rel=2**-8)
    assert image.high == pytest.approx(normalised.max(), rel=2**-8)
    relu = next(found for name, found in ranges.items() if name.startswith("relu"))
    assert relu.low == 0.0 < relu.high == relu.maximum


@pytest.mark.parametrize("method", METHODS)
def test_no_threshold_reaches_beyond_what_was_seen(method, network, table_for):
    for found in table_for(network, method).tensors:
        assert found.minimum <= found.low <= 0.0 <= found.high <= found.maximum or found.minimum >= 0.0 == found.low


def test_no_images_and_a_wrong_count_are_refused(network, images, record):
    with pytest.raises(EdgetlError, match="no calibration images"):
        calibrate(network, [], Recipe(), ())
    with pytest.raises(EdgetlError, match="3 images were calibrated on but 2 recorded"):
        calibrate(network, [images(3)], Recipe(), record(2))


@pytest.mark.parametrize("wrong", [np.zeros((3, 16, 16), np.float32), np.zeros((1, 3, 16, 16), np.uint8)])
def test_batches_of_another_shape_or_type_are_refused(wrong, network, record):
    with pytest.raises(EdgetlError, match=r"expected float32 \[n,3,H,W\]"):
        calibrate(network, [wrong], Recipe(), record(1))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_tensor_with_nan_or_infinity_is_named(poison, network, images, record):
    pictures = images(3)
    pictures[2, 0, 0, 0] = poison
    with pytest.raises(EdgetlError, match=r"tensor 'div_1' holds NaN or infinity on calibration image 3"):
        calibrate(network, [pictures], Recipe(), record(3))


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_is_always_zero_has_an_empty_range(method, sketch, table_for):
    plan = sketch()
    dead = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    plan.head("vehicles", plan.features(plan.conv(dead, 4, 4)), 4)
    model = plan.model()
    for tensor in model.graph.initializer[2:4]:
        tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, -0.0, np.float32), tensor.name))
    found = table_for(model, method).by_name()[dead]
    assert (found.low, found.high, found.amax) == (0.0, 0.0, 0.0)


def test_a_graph_without_layers_to_quantise_is_refused(sketch, images, record):
    plan = sketch()
    plan.head("vehicles", plan.features(plan.start), 3)
    with pytest.raises(EdgetlError, match="no Conv"):
        calibrate(plan.model(), [images(1)], Recipe(), record(1))


def test_calibrating_leaves_the_model_alone(network, table_for):
    before = model_bytes(network)
    table_for(network)
    assert model_bytes(network) == before


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(arrays(np.float32, st.integers(1, 30), elements=finite), min_size=1, max_size=5))
def test_a_histogram_that_grew_equals_one_with_the_final_range(parts):
    grown = Histogram()
    for part in parts:
        grown.add(part)
    values = np.concatenate(parts).astype(np.float64)
    edges = np.ldexp(np.arange(BINS + 1) / BINS, grown.exponent)
    np.testing.assert_array_equal(grown.counts, np.histogram(np.abs(values), edges)[0])
    assert (grown.minimum, grown.maximum) == (values.min(), values.max())


def test_a_histogram_does_not_grow_with_what_it_counts():
    histogram = Histogram()
    for seed in range(20):
        histogram.add(np.random.default_rng(seed).standard_cauchy(10_000).astype(np.float32))
    assert histogram.counts.nbytes == BINS * 8
    assert histogram.counts.sum() == 200_000


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentile_is_that_of_the_magnitudes_to_one_bin(percentile):
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    exact = np.percentile(np.abs(values), percentile, method="inverted_cdf")
    assert exact <= _percentile(histogram, percentile) <= exact + histogram.width


@pytest.mark.parametrize("draw", ["normal", "laplace", "uniform", "outlier"])
def test_mse_is_within_a_hair_of_the_best_threshold_by_trying_all(draw):
    random = np.random.default_rng(3)
    values = random.normal(size=20_000) if draw == "outlier" else getattr(random, draw)(size=20_000)
    values = np.append(values, 40.0 if draw == "outlier" else values[0]).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)

    def error(amax: float) -> float:
        step = amax / 127
        return float(np.square(values - np.clip(np.rint(values / step), -127, 127) * step).mean())

    largest = float(np.abs(values).max())
    best = min(error(amax) for amax in np.linspace(largest / 40, largest, 400))
    assert error(_least_squares(histogram, largest)) <= 1.1 * best


def test_mse_clips_an_outlier_in_a_million_that_max_follows():
    values = np.random.default_rng(5).normal(size=1_000_000).astype(np.float32)
    values[0] = 60.0
    histogram = Histogram()
    histogram.add(values)
    assert histogram.maximum == 60.0
    assert 3.0 < _least_squares(histogram, 60.0) < 15.0
