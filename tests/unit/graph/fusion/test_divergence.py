"""Where graphs part, and the reason that is given."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgetl.graph.fp16 import to_fp16
from edgetl.graph.fusion.difference import STATISTICS, factors_between
from edgetl.graph.fusion.divergence import divergences
from edgetl.graph.quantize import quantize


def spoken(body, tensors=None, opset=17):
    """A model in ONNX's own notation, on images N x 3 x 8 x 8, with tensors as initializers."""
    start = f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[N,3,8,8] images) => (float[N,C,H,W] out)'
    values = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (tensors or {}).items()]
    model = onnx.parser.parse_model(f"{start} {{ {body} }}")
    model.graph.initializer.extend(values)
    onnx.checker.check_model(model)
    return model


def parting(a, b):
    (found,) = divergences({"a": a, "b": b})
    return found.layer, found.reason


def weight(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


NETWORK = """
    x = Conv <pads = [1, 1, 1, 1]> (images, stem_w)
    y = Relu (x)
    z = Conv <pads = [1, 1, 1, 1]> (y, w, bias)
    out = Relu (z)
"""
TENSORS = {"stem_w": weight(4, 3, 3, 3), "w": weight(4, 4, 3, 3, seed=1), "bias": weight(4, seed=2)}


def network(**changes):
    model = spoken(NETWORK, TENSORS | changes)
    model.graph.node[2].name = "/features/features.3/conv/conv.0/Conv"
    return model


def test_the_first_layer_with_another_weight_is_named_with_how_much():
    (found,) = divergences({"a": network(), "b": network(w=TENSORS["w"] + np.float32(0.5))})
    assert (found.model, found.against, found.shared, found.layers) == ("b", "a", 2, 4)
    assert found.layer == "features.3.conv.0"
    assert found.reason == "weight differs by up to 0.5"


def test_graphs_that_are_the_same_part_nowhere():
    assert parting(network(), network()) == (None, "all of b is in a")


def test_graphs_part_where_one_goes_on_and_the_other_ends():
    short = spoken("out = Conv <pads = [1, 1, 1, 1]> (images, stem_w)", {"stem_w": TENSORS["stem_w"]})
    assert parting(network(), short) == (None, "all of b is in a")
    assert parting(short, network())[1] == "a has no layer here"


def test_each_graph_is_held_against_the_one_it_has_most_in_common_with():
    c = network(bias=TENSORS["bias"] + 1)
    found = divergences({"a": network(stem_w=weight(4, 3, 3, 3, seed=9)), "b": network(), "c": c})
    assert [(one.model, one.against, one.shared) for one in found] == [("b", "a", 0), ("c", "b", 2)]


def test_a_weight_of_another_shape_is_told_with_both():
    reason = parting(network(), network(w=weight(5, 4, 3, 3), bias=weight(5)))[1]
    assert reason == "weight differs in shape or type: float32 [4, 4, 3, 3] in a, float32 [5, 4, 3, 3] in b"


def test_attributes_are_told_with_both_values_and_absent_ones_as_such():
    a = spoken("out = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (images)")
    b = spoken("out = MaxPool <kernel_shape = [2, 2]> (images)")
    assert parting(a, b)[1] == "attribute strides differs: [2, 2] in a, its default in b"


def test_operators_are_told_with_both():
    a, b = spoken("out = Relu (images)"), spoken("out = Sigmoid (images)")
    assert parting(a, b) == ("out", "operator differs: Relu in a, Sigmoid in b")


def test_constants_of_a_few_numbers_are_told_with_both_values():
    def model(mean):
        return spoken("out = Sub (images, mean)", {"mean": np.array(mean).reshape(3, 1, 1)})

    reason = parting(model([0.485, 0.456, 0.406]), model([0.5, 0.5, 0.5]))[1]
    assert reason == "constant differs: [0.485, 0.456, 0.406] in a, [0.5, 0.5, 0.5] in b"


def test_a_bias_that_only_one_has_is_told():
    without = spoken(NETWORK.replace("(y, w, bias)", "(y, w)"), {name: TENSORS[name] for name in ("stem_w", "w")})
    assert parting(network(), without)[1] == "b has no bias here"
    assert parting(without, network())[1] == "a has no bias here"


def test_control_flow_and_random_layers_are_told_as_never_merged():
    model = spoken("out = RandomNormalLike (images)")
    assert "RandomNormalLike is never merged" in parting(model, model)[1]


def test_shapes_that_one_exporter_computes_hide_no_differing_layer():
    a = spoken("out = Conv (images, w)", {"w": weight(4, 3, 3, 3)})
    size = "s = Shape (images) t = Cast <to = 1> (s) u = ReduceSum <keepdims = 0> (t)"
    b = spoken(f"{size} y = Conv (images, w) out = Mul (y, u)", {"w": weight(4, 3, 3, 3, seed=1)})
    assert parting(a, b)[1].startswith("weight differs")


# --- batch norm ------------------------------------------------------------------------------------------------------

BATCH_NORM = "x = Conv (images, w) y = BatchNormalization (x, gamma, beta, mean, variance) out = Relu (y)"
STATES = {
    "w": weight(4, 3, 3, 3),
    "gamma": np.ones(4) * 1.5,
    "beta": np.zeros(4),
    "mean": weight(4, seed=3),
    "variance": np.array([0.5, 1.0, 2.0, 3.0]),
}


def folded(kind=np.float32, **changes):
    """The same network as exporters write it: batch norm in the Conv's weight and bias."""
    state = {name: np.asarray(value, np.float64) for name, value in (STATES | changes).items()}
    factor = state["gamma"] / np.sqrt(state["variance"] + 1e-5)
    w = (state["w"] * factor[:, None, None, None]).astype(kind)
    return spoken(
        "y = Conv (images, weight_w, b) out = Relu (y)", {"weight_w": w, "b": state["beta"] - state["mean"] * factor}
    )


MOVED = {"mean": STATES["mean"] + 0.1, "variance": STATES["variance"] * np.array([1.0, 1.1, 0.9, 1.3])}


def test_batch_norm_that_went_on_training_is_told_as_such():
    for change in ({"mean": MOVED["mean"]}, {"variance": MOVED["variance"]}, MOVED):
        assert parting(spoken(BATCH_NORM, STATES), spoken(BATCH_NORM, STATES | change))[1] == STATISTICS


def test_batch_norm_with_other_weights_is_told_apart_from_other_statistics():
    changed = spoken(BATCH_NORM, STATES | MOVED | {"gamma": np.ones(4)})
    assert parting(spoken(BATCH_NORM, STATES), changed)[1] == "batch-norm weights differ"


def test_statistics_are_told_as_likely_where_batch_norm_is_folded():
    reason = parting(folded(), folded(**MOVED))[1]
    assert (
        reason
        == f"weight differs by a factor per channel (0.877 to 1.05); if batch norm is folded into it, {STATISTICS}"
    )


def test_a_mean_that_moved_shows_in_the_bias_alone_where_batch_norm_is_folded():
    reason = parting(folded(), folded(mean=MOVED["mean"]))[1]
    assert reason == f"bias differs although weights are equal; if batch norm is folded into it, {STATISTICS}"


def test_a_weight_that_was_trained_is_not_taken_for_batch_norm():
    for noise in (1e-3, 1.0):
        changed = folded(w=STATES["w"] + noise * weight(4, 3, 3, 3, seed=7))
        assert parting(folded(), changed)[1].startswith("weight differs by up to ")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_folded_statistics_are_recognised_in_lower_precision(precision, sketch, table_for):
    def model(factor):
        plan = sketch()
        tensor = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
        plan.head("vehicles", plan.features(plan.conv(tensor, 4, 4)), 4)
        built = plan.model()
        tensor = built.graph.initializer[4]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, tensor.name))
        table = table_for(built)
        return to_fp16(built) if precision == "fp16" else quantize(built, table, "tensorrt")

    factor = np.array([1.0, 1.1, 0.9, 1.3], np.float32).reshape(4, 1, 1, 1)
    reason = parting(model(np.float32(1)), model(factor))[1]
    assert reason.startswith("weight differs by a factor per channel (0.9 to 1.3)"), reason


def test_another_normalisation_that_was_folded_into_the_first_layer_is_told():
    w = weight(4, 3, 3, 3)
    a, b = (spoken("out = Conv (images, w)", {"w": w * k}) for k in (1.0, np.array([1.0, 1.1, 0.9])[:, None, None]))
    assert parting(a, b)[1].startswith("weight differs by a factor per input channel")


@given(
    factors=st.lists(st.floats(0.125, 8.0), min_size=1, max_size=6),
    axis=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_factors_are_found_along_the_axis_they_are_on(factors, axis, seed):
    shape = (len(factors), 5, 3) if axis == 0 else (5, len(factors), 3)
    one = weight(*shape, seed=seed)
    along = np.array(factors).reshape([-1 if dim == axis else 1 for dim in range(3)])
    found = factors_between(one, (one * along).astype(np.float32), axis, 1e-4)
    np.testing.assert_allclose(found, factors, rtol=1e-5)
    assert factors_between(one, weight(*shape, seed=seed + 100), axis, 1e-4) is None


def test_rows_of_zeros_or_of_one_number_prove_nothing():
    one = np.ones((3, 1), np.float32)
    assert factors_between(one, 2 * one, 0, 1e-4) is None
    zeros = np.zeros((3, 4), np.float32)
    assert factors_between(zeros, zeros, 0, 1e-4) is None
    assert factors_between(zeros, zeros + 1, 0, 1e-4) is None


# --- Q/DQ and names --------------------------------------------------------------------------------------------------


def test_scales_are_told_with_both(sketch, table_for):
    def model(brightness):
        plan = sketch()
        plan.head("vehicles", plan.features(plan.conv(plan.start, 3, 4)), 4)
        built = plan.model()
        table = table_for(built)
        wider = tuple(found.model_copy(update={"low": found.low * brightness}) for found in table.tensors)
        return quantize(built, table.model_copy(update={"tensors": wider}), "tensorrt")

    layer, reason = parting(model(1.0), model(4.0))
    assert layer == "div_1_quantized"
    assert reason.startswith("scales differ: 0.0")
    assert " in a, 0.0" in reason


@pytest.mark.parametrize(
    ("node", "tensor", "expected"),
    [
        ("anything", "features.4.conv.weight", "features.4.conv"),
        ("anything", "layer1.0.bn1.running_mean", "layer1.0.bn1"),
        ("anything", "features.0.0.weight_bias", "features.0.0"),
        ("/layer1/layer1.0/conv1/Conv", "onnx::Conv_1", "layer1.0.conv1"),
        ("/features/features.4/conv/conv.0/conv.0.0/Conv", "onnx::Conv_1", "features.4.conv.0.0"),
        ("/Conv", "w", "/Conv"),
        ("own", "w", "own"),
        ("", "w", "out"),
    ],
)
def test_layers_are_called_what_their_framework_calls_them(node, tensor, expected):
    def model(value):
        graph = helper.make_graph(
            [helper.make_node("Conv", ["images", tensor], ["out"], name=node)],
            "g",
            [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
            [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, tensor)],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    assert parting(model(weight(4, 3, 3, 3)), model(weight(4, 3, 3, 3, seed=1)))[0] == expected
