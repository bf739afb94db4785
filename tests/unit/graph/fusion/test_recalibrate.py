"""Graphs that were quantised apart: which scales differ, and what uniting their ranges does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.fusion.recalibrate import recalibrate, scale_conflicts
from edgetl.graph.parity import max_difference, run
from edgetl.graph.quantize import quantize


@pytest.fixture
def quantised(sketch, table_for):
    """The same trunk with another head for each seed, its ranges wider by a factor."""

    def quantised(seed, wider=1.0, target="tensorrt"):
        plan = sketch()
        tensor = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
        tensor = plan.node("MaxPool", [tensor], kernel_shape=[2, 2], strides=[2, 2])
        tensor = plan.node("Relu", [plan.conv(tensor, 4, 4)])
        plan.random = np.random.default_rng(seed)
        plan.head("vehicles", plan.features(tensor), 4)
        model = plan.model()
        table = table_for(model)
        ranges = tuple(
            found.model_copy(update={"low": found.low * wider, "high": found.high * wider}) for found in table.tensors
        )
        return quantize(model, table.model_copy(update={"tensors": ranges}), target)

    return quantised


def test_equal_scales_are_no_conflict(quantised):
    assert scale_conflicts({"a": quantised(1), "b": quantised(2)}) == ()


def test_graphs_that_are_not_quantised_have_no_conflict(network):
    assert scale_conflicts({"a": network, "b": network}) == ()
    assert recalibrate({"a": network, "b": network}) == {"a": network, "b": network}


def test_every_shared_tensor_with_two_scales_is_told_with_both(quantised):
    found = scale_conflicts({"a": quantised(1), "b": quantised(2, wider=2.0)})
    assert [conflict.tensor for conflict in found] == ["div_1", "maxpool_4"]
    for conflict in found:
        assert conflict.scales["b"] == pytest.approx(2 * conflict.scales["a"])


def test_sharing_ends_at_another_scale_until_the_ranges_are_united(quantised):
    models = {"a": quantised(1), "b": quantised(2, wider=2.0)}
    together = fuse(models).model
    assert sum(node.op_type == "Conv" for node in together.graph.node) == 4
    united = recalibrate(models)
    assert scale_conflicts(united) == ()
    fused = fuse(united).model
    onnx.checker.check_model(fused, full_check=True)
    assert sum(node.op_type == "Conv" for node in fused.graph.node) == 2


def test_a_united_range_is_the_wider_one_and_the_originals_stay_as_they_are(quantised, images):
    narrow, wide = quantised(1), quantised(1, wider=2.0)
    before = narrow.SerializeToString()
    united = recalibrate({"a": narrow, "b": wide})
    assert narrow.SerializeToString() == before
    assert max_difference(run(united["a"], images(4)), run(wide, images(4))) == 0.0
    assert max_difference(run(united["b"], images(4)), run(wide, images(4))) == 0.0


def test_biases_in_steps_of_a_scale_that_would_change_are_refused(quantised):
    models = {"a": quantised(1, target="onnxruntime"), "b": quantised(2, wider=2.0, target="onnxruntime")}
    assert len(scale_conflicts(models)) >= 1
    with pytest.raises(EdgetlError, match=r"the INT32 bias of .* in a is stored in steps of a scale that would change"):
        recalibrate(models)


def coded(low, high):
    """Images through UINT8 from low to high and back."""
    scale = np.float32((high - low) / 255)
    values = [
        numpy_helper.from_array(np.asarray(scale), "s"),
        numpy_helper.from_array(np.asarray(np.rint(-low / scale), np.uint8), "z"),
    ]
    shape = ["N", 3, 4, 4]
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shape)],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.0, 9.0), st.floats(0.1, 9.0)), min_size=2, max_size=3))
def test_united_ranges_hold_what_each_range_held(ranges):
    models = {f"m{number}": coded(-low, high) for number, (low, high) in enumerate(ranges)}
    lowest, highest = -max(low for low, _ in ranges), max(high for _, high in ranges)
    ramp = np.linspace(lowest, highest, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    for model in recalibrate(models).values():
        restored = run(model, ramp)["out"]
        assert np.abs(restored - ramp).max() <= 1.1 * (highest - lowest) / 255
    assert scale_conflicts(recalibrate(models)) == ()
