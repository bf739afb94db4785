"""Equalisation: what it keeps, and what it mends."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgetl.config import Recipe
from edgetl.graph.calibrate import calibrate
from edgetl.graph.equalise import equalise
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


def test_a_negative_side_that_the_activation_shrinks_does_not_count(sketch, images):
    """A channel that reaches far below 0 alone is small behind LeakyRelu, and that is what the next layer reads."""
    plan = sketch()
    first = plan.conv(plan.start, 3, 4)
    plan.head("vehicles", plan.features(plan.conv(plan.node("LeakyRelu", [first]), 4, 4)), 4)
    model = plan.model()
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    weight, bias = (
        next(tensor for tensor in model.graph.initializer if tensor.name == name) for name in layers[0].input[1:]
    )
    kernel = np.abs(numpy_helper.to_array(weight)) + 0.1
    kernel[0] *= -10
    weight.CopyFrom(numpy_helper.from_array(kernel.astype(np.float32), weight.name))
    bias.CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), bias.name))
    bright = 0.9 + 0.1 * images(4)
    equal = next(t for t in equalise(model, bright).graph.initializer if t.name == weight.name)
    factors = kernel[:, 0, 0, 0] / numpy_helper.to_array(equal)[:, 0, 0, 0]
    assert factors[0] < factors[1:].min()
