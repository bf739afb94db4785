"""Calibration: the same bits every time, and thresholds that do what their names say."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import numpy_helper

from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.files import read_json, sha256_bytes, write_json
from edgetl.config import CalibrationRecipe
from edgetl.errors import EdgetlError
from edgetl.graph.calibrate import ranked_tables
from edgetl.graph.model import model_bytes
from edgetl.graph.observe import PROBES, Observer, quantisable_tensors
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results
from tests.calibrating import calibrate

METHODS = ["max", "percentile", "entropy", "mse", "auto"]


def batches_of(images, size):
    return [images[start : start + size] for start in range(0, len(images), size)]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_batch_size_and_order_do_not_change_a_bit_of_the_table(method, network, images, record):
    pictures, recipe = images(12), CalibrationRecipe(method=method)
    tables = [calibrate(network, batches_of(pictures, size), recipe, record(12)) for size in (1, 3, 8)]
    shuffled = pictures[np.random.default_rng(1).permutation(12)]
    tables.append(calibrate(network, batches_of(shuffled, 5), recipe, record(12)))
    assert len({table.model_dump_json() for table in tables}) == 1


def test_the_table_names_its_graph_method_and_images_in_the_order_given(network, images, record):
    named = tuple(reversed(record(4)))
    table = calibrate(network, iter(batches_of(images(4), 2)), CalibrationRecipe(method="percentile"), named)
    assert table.method == "percentile 99.99"
    assert table.graph_sha256 == sha256_bytes(model_bytes(network))
    assert table.images == named


def test_tensors_that_are_asked_for_get_the_ranges_that_they_have_among_all(network, images, record, table_for):
    """Graphs that are parts of one whole are calibrated in one pass over it."""
    every = quantisable_tensors(network)
    some = calibrate(network, [images(8)], CalibrationRecipe(method="max"), record(8), every[3:6])
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
        calibrate(network, [], CalibrationRecipe(), ())
    with pytest.raises(EdgetlError, match="3 images were calibrated on but 2 recorded"):
        calibrate(network, [images(3)], CalibrationRecipe(), record(2))


@pytest.mark.parametrize("wrong", [np.zeros((3, 16, 16), np.float32), np.zeros((1, 3, 16, 16), np.uint8)])
def test_batches_of_another_shape_or_type_are_refused(wrong, network, record):
    with pytest.raises(EdgetlError, match=r"expected float32 \[n,3,H,W\]"):
        calibrate(network, [wrong], CalibrationRecipe(), record(1))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_tensor_with_nan_or_infinity_is_named(poison, network, images, record):
    pictures = images(3)
    pictures[2, 0, 0, 0] = poison
    with pytest.raises(EdgetlError, match=r"tensor 'div_1' holds NaN or infinity on a calibration image"):
        calibrate(network, [pictures], CalibrationRecipe(), record(3))


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
        calibrate(plan.model(), [images(1)], CalibrationRecipe(), record(1))


def test_calibrating_leaves_the_model_alone(network, table_for):
    before = model_bytes(network)
    table_for(network)
    assert model_bytes(network) == before


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_graph_is_the_same_bytes_from_any_number_of_threads(method, network, images, record):
    pictures, graphs = images(16), set()
    for threads in (1, 2, 5):
        observer = Observer(network)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(observer.add, batches_of(pictures[:: 1 if threads == 2 else -1], threads)))
        seen = observer.observation(16)
        table = ranked_tables(network, seen, CalibrationRecipe(method=method), record(16))[0]
        graphs.update(model_bytes(quantize(network, table, target)) for target in ("tensorrt", "onnxruntime"))
    assert len(graphs) == 2


def test_the_probes_are_the_same_images_whatever_order_they_come_in(network, images):
    pictures = images(PROBES + 20)
    forward, backward = Observer(network), Observer(network)
    forward.add(pictures)
    backward.add(pictures[::-1])
    seen = forward.observation(len(pictures)).probes
    assert len(seen) == PROBES
    np.testing.assert_array_equal(seen, backward.observation(len(pictures)).probes)


def test_what_is_fitted_to_some_probes_is_judged_on_others(network, images):
    observer = Observer(network)
    seen = observer.observation(observer.add(images(20)))
    both = {image.tobytes() for half in (seen.fitting_images, seen.probe_images) for image in half}
    assert (len(seen.fitting_images), len(seen.probe_images), len(both)) == (10, 10, 20)
    alone = Observer(network)
    np.testing.assert_array_equal(alone.observation(alone.add(images(1))).probe_images, images(1))


def test_auto_says_what_every_method_came_to_and_takes_the_best(network, images, record, judging):
    table = calibrate(network, [images(8)], CalibrationRecipe(method="auto"), record(8))
    noise = [trial.snr_db for trial in table.trials]
    assert noise == sorted(noise, reverse=True)
    assert table.method == table.trials[0].method
    assert {trial.method.split()[0] for trial in table.trials} == {"max", "percentile", "entropy", "mse"}
    alone = calibrate(network, [images(8)], CalibrationRecipe(method="max"), record(8))
    exact = results(network, judging(network, images(8)))
    found = results(quantize(network, alone, "tensorrt"), judging(network, images(8)), tuple(exact))
    recorded = next(trial.snr_db for trial in table.trials if trial.method == "max")
    assert recorded == pytest.approx(mean_snr_db(exact, found), abs=0.02)


def test_the_table_in_its_file_holds_method_amax_scale_and_histogram(network, table_for, tmp_path):
    table = table_for(network, "percentile")
    write_json(tmp_path / "table.json", table)
    assert read_json(tmp_path / "table.json", CalibrationTable) == table
    stored = json.loads((tmp_path / "table.json").read_text())["tensors"][0]
    assert stored["method"] == "percentile 99.99"
    assert stored["amax"] == max(-stored["low"], stored["high"])
    assert stored["scale"] == stored["amax"] / 127
    assert sum(stored["magnitudes"]["counts"]) == 8 * 3 * 16 * 16
    reach = stored["magnitudes"]["width"] * len(stored["magnitudes"]["counts"])
    assert max(-stored["minimum"], stored["maximum"]) <= reach * (1 + 2**-8)
