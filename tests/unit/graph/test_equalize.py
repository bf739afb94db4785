"""Equalisation: what it keeps, and what it mends."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetl.config import CalibrationRecipe
from edgetl.graph.equalize import equalize
from edgetl.graph.model import model_bytes
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results, snr_db
from tests.calibrating import calibrate


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
    table = calibrate(against or model, [pictures], CalibrationRecipe(method="max"), record(len(pictures)))
    exact = results(against or model, pictures)
    return mean_snr_db(exact, results(quantize(model, table, "tensorrt"), pictures, tuple(exact)))


@pytest.mark.parametrize("residual", [True, False])
def test_equalisation_keeps_the_results_and_helps_int8(residual, sketch, images, record):
    model = uneven(sketch, residual=residual)
    equal = equalize(model, "tensorrt", images(8))
    before, after = results(model, images(8)), results(equal, images(8))
    for name, value in before.items():
        assert snr_db(value, after[name]) > 100.0
    assert int8_snr(equal, images(8), record) > int8_snr(model, images(8), record) + 6.0


def test_a_bound_that_would_not_move_along_ends_a_span(network, images):
    """Clip, the head, and outputs: nothing behind or before them is scaled."""
    equal = equalize(network, "tensorrt", images(4))
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
    clipped = [node for node in network.graph.node if node.op_type == "Conv"][4]  # between two Clips
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in equal.graph.initializer}
    np.testing.assert_array_equal(after[clipped.input[1]], before[clipped.input[1]])


@settings(max_examples=15)
@given(layers=st.lists(st.sampled_from(["conv", "relu", "relu6", "pool", "add"]), min_size=1, max_size=6))
def test_equalising_any_chain_keeps_its_results(layers, sketch, images):
    model = sketch(seed=len(layers)).chain(layers)
    exact = results(model, images(3))
    assert mean_snr_db(exact, results(equalize(model, "tensorrt", images(3)), images(3), tuple(exact))) > 100.0


def forked(sketch, reader: str = "conv", read_alone: bool = False) -> onnx.ModelProto:
    """Two convolutions side by side that reach very differently far, joined by Concat, as in SqueezeNet."""
    plan = sketch(4)
    start = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    left, right = (plan.node("Relu", [plan.conv(start, 4, 4)]) for _ in range(2))
    both = plan.node("MaxPool", [plan.node("Concat", [left, right], axis=1)], kernel_shape=[2, 2], strides=[2, 2])
    tensor = plan.conv(both, 8, 8) if reader == "conv" else plan.node(reader, [both])
    if read_alone:
        alone = plan.node("GlobalAveragePool", [plan.conv(left, 4, 8)])
        tensor = plan.node("Add", [plan.node("GlobalAveragePool", [tensor]), alone])
    plan.head("vehicles", plan.features(tensor), 8)
    model = plan.model()
    far = next(node.input for node in model.graph.node if node.output[0] == "conv_6")
    for tensor in model.graph.initializer:
        if tensor.name in far[1:]:
            tensor.CopyFrom(numpy_helper.from_array(50 * numpy_helper.to_array(tensor), tensor.name))
    return model


@pytest.mark.parametrize("read_alone", [False, True])
def test_channels_are_equalised_through_a_join_also_where_a_part_is_read_alone(read_alone, sketch, images, record):
    model = forked(sketch, read_alone=read_alone)
    equal = equalize(model, "tensorrt", images(8))
    exact = results(model, images(8))
    assert mean_snr_db(exact, results(equal, images(8), tuple(exact))) > 100.0
    (joined,) = (node.output[0] for node in model.graph.node if node.op_type == "Concat")

    def apart(one: onnx.ModelProto) -> float:
        value = results(one, images(8), [joined])[joined]
        return float(np.ptp(np.log2(np.abs(value).max(axis=(0, 2, 3)))))

    assert apart(equal) < 0.5 * apart(model)


def test_what_more_than_convolutions_read_is_not_scaled(sketch, images):
    model = forked(sketch, reader="Sigmoid")
    equal = equalize(model, "tensorrt", images(8))
    (joined,) = (node.output[0] for node in model.graph.node if node.op_type == "Concat")
    before, after = (results(one, images(8), [joined])[joined] for one in (model, equal))
    assert snr_db(before, after) > 100.0


def test_what_a_branch_of_control_flow_reads_is_not_scaled(sketch, images):
    plan = sketch(4)
    inner = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    last = plan.conv(inner, 4, 4)
    value = helper.make_tensor_value_info("captured", TensorProto.FLOAT, ["N", 4, 16, 16])
    branch = helper.make_graph([helper.make_node("Identity", [inner], ["captured"])], "branch", [], [value])
    always = plan.node("Constant", [], "always", value=numpy_helper.from_array(np.array(True)))
    seen = plan.node("If", [always], then_branch=branch, else_branch=branch)
    plan.head("vehicles", plan.features(plan.node("Add", [seen, last])), 4)
    model = plan.model()
    exact = results(model, images(4))
    assert mean_snr_db(exact, results(equalize(model, "tensorrt", images(4)), images(4), tuple(exact))) == 120.0


def test_a_weight_that_two_layers_share_is_left_alone(sketch, images):
    plan = sketch()
    second = plan.conv(plan.node("Relu", [plan.conv(plan.start, 3, 3)]), 3, 3)
    plan.nodes[-1].input[1] = plan.nodes[-3].input[1]
    plan.head("vehicles", plan.features(plan.node("Relu", [second])), 3)
    model = plan.model()
    assert model_bytes(equalize(model, "tensorrt", images(2))) == model_bytes(model)


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
    equal = next(t for t in equalize(model, "tensorrt", bright).graph.initializer if t.name == weight.name)
    factors = kernel[:, 0, 0, 0] / numpy_helper.to_array(equal)[:, 0, 0, 0]
    assert factors[0] < factors[1:].min()
