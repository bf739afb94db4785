"""Equalisation and bias correction: what they keep, and what they mend."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgetl.config import Recipe
from edgetl.graph.bias import corrected_biases, with_biases
from edgetl.graph.calibrate import calibrate
from edgetl.graph.equalise import equalise, has_depthwise
from edgetl.graph.model import model_bytes
from edgetl.graph.noise import mean_snr_db, results
from edgetl.graph.parity import run
from edgetl.graph.quantise import quantise


def uneven(sketch, factors=(1e-2, 1.0, 1e2, 4.0), residual: bool = True) -> onnx.ModelProto:
    """Linear bottlenecks whose channels reach very differently far, and what undoes that behind them."""
    plan = sketch(3)
    first = plan.conv(plan.start, 3, 4)
    tensor = plan.node("Add", [plan.conv(first, 4, 4), first]) if residual else plan.node("Relu", [first])
    tensor = plan.relu6(plan.conv(tensor, 4, 8, groups=4))
    plan.head("vehicles", plan.features(plan.conv(tensor, 8, 8)), 8)
    model = plan.model()
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    by = np.array(factors, np.float32)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]

    def scale(name: str, factor: np.ndarray) -> None:
        value = numpy_helper.to_array(constants[name]) * factor
        constants[name].CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))

    for node in convolutions[: 2 if residual else 1]:
        scale(node.input[1], by[:, None, None, None])
        scale(node.input[2], by)
    if residual:
        scale(convolutions[1].input[1], 1 / by[None, :, None, None])
    scale(convolutions[2 if residual else 1].input[1], (1 / by).repeat(2)[:, None, None, None])
    return model


def int8_snr(model: onnx.ModelProto, pictures, record, against: onnx.ModelProto | None = None) -> float:
    table = calibrate(against or model, [pictures], Recipe(method="max"), record(len(pictures)))
    exact = results(against or model, pictures)
    return mean_snr_db(exact, results(quantise(model, table, "tensorrt"), pictures, tuple(exact)))


@pytest.mark.parametrize("residual", [True, False])
def test_equalisation_changes_no_bit_of_the_results_and_helps_int8(residual, sketch, images, record):
    model = uneven(sketch, residual=residual)
    equal = equalise(model, images(8))
    before, after = results(model, images(8)), results(equal, images(8))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert int8_snr(equal, images(8), record) > int8_snr(model, images(8), record) + 6.0


def test_a_bound_that_would_not_move_along_ends_a_span(network, images):
    """Clip, Concat, the head, and outputs: nothing behind or before them is scaled."""
    equal = equalise(network, images(4))
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    clipped = [node for node in network.graph.node if node.op_type == "Conv"][4]  # between two Clips
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in equal.graph.initializer}
    np.testing.assert_array_equal(after[clipped.input[1]], before[clipped.input[1]])


@settings(max_examples=15, deadline=None)
@given(layers=st.lists(st.sampled_from(["conv", "relu", "relu6", "pool", "add"]), min_size=1, max_size=6))
def test_equalising_any_chain_changes_no_bit(layers, sketch, images):
    model = sketch(seed=len(layers)).chain(layers)
    equal = equalise(model, images(3))
    np.testing.assert_array_equal(run(model, images(3))["vehicles"], run(equal, images(3))["vehicles"])


def test_a_weight_that_two_layers_share_is_left_alone(sketch, images):
    plan = sketch()
    second = plan.conv(plan.node("Relu", [plan.conv(plan.start, 3, 3)]), 3, 3)
    plan.nodes[-1].input[1] = plan.nodes[-3].input[1]
    plan.head("vehicles", plan.features(plan.node("Relu", [second])), 3)
    model = plan.model()
    assert model_bytes(equalise(model, images(2))) == model_bytes(model)


def test_depthwise_convolutions_are_seen(network, sketch):
    assert has_depthwise(network)
    assert not has_depthwise(sketch().chain(["conv", "relu"]))


def test_bias_correction_takes_the_mean_error_of_rounded_weights_away(sketch, images, record):
    """Against the truth: the mean, over images and pixels, of what each output channel is off."""
    plan = sketch(5)
    layer = plan.conv(plan.start, 3, 6)
    plan.head("vehicles", plan.features(layer), 6)
    model, pictures = plan.model(), images(16)
    weight = model.graph.initializer[2]
    coarse = np.rint(numpy_helper.to_array(weight) * 2) / 2 + 0.003  # what INT8 rounds to one side
    coarse[:, 0, 0, 0] = 100.0
    weight.CopyFrom(numpy_helper.from_array(coarse.astype(np.float32), weight.name))
    table = calibrate(model, [pictures], Recipe(method="max"), record(16))
    exact = results(model, pictures, [layer])[layer]

    def off(graph: onnx.ModelProto) -> float:
        found = results(quantise(graph, table, "tensorrt"), pictures, [layer])[layer]
        return float(np.abs((found - exact).mean(axis=(0, 2, 3))).max())

    assert off(with_biases(model, corrected_biases(model, pictures))) < 0.5 * off(model)


def test_a_layer_without_a_bias_gets_one_and_the_model_is_left_alone(sketch, images):
    plan = sketch()
    plan.conv(plan.start, 3, 4)
    del plan.nodes[-1].input[2:]
    plan.head("vehicles", plan.features(plan.nodes[-1].output[0]), 4)
    model = plan.model()
    before = model_bytes(model)
    corrected = with_biases(model, corrected_biases(model, images(2)))
    onnx.checker.check_model(corrected, full_check=True)
    convolution = next(node for node in corrected.graph.node if node.op_type == "Conv")
    assert len(convolution.input) == 3
    assert model_bytes(model) == before
