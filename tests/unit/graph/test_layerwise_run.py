"""A graph run part by part: the same values as in one run, and what is replaced counts from there on."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgetl.config import CalibrationRecipe
from edgetl.graph.layerwise_run import Walk
from edgetl.graph.model import model_bytes, with_outputs
from edgetl.graph.parity import Reference
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

KINDS = ["conv", "relu", "relu6", "pool", "add"]


def in_one_run(model: onnx.ModelProto, names, pictures) -> dict[str, list[np.ndarray]]:
    reference = Reference(with_outputs(model, names), optimised=False, threads=1)
    found = [reference.run(pictures[position : position + 1]) for position in range(len(pictures))]
    return {name: [one[name] for one in found] for name in names}


def assert_same(model: onnx.ModelProto, names, pictures) -> None:
    walk, whole = Walk(model, names, pictures), in_one_run(model, names, pictures)
    for name in names:
        for found, exact in zip(walk.to(name), whole[name], strict=True):
            np.testing.assert_array_equal(found, exact)


@settings(max_examples=20)
@given(layers=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7), every=st.integers(1, 3))
def test_every_stop_holds_what_one_run_says(layers, every, sketch, images):
    model = sketch(seed=len(layers)).chain(layers)
    assert_same(model, [node.output[0] for node in model.graph.node][::every], images(3))


def test_the_same_goes_for_int8_where_weights_are_made_on_the_way(network, images, record):
    table = calibrate(network, [images(8)], CalibrationRecipe(method="max"), record(8))
    for target in ("tensorrt", "onnxruntime"):
        quantised = quantize(network, table, target)
        reads = dict.fromkeys(node.input[0] for node in quantised.graph.node if node.op_type == "Conv")
        assert_same(quantised, list(reads), images(4))


def test_what_holds_no_floats_is_handed_on_too(sketch, images):
    """A shape that an image has, worked out early and used late."""
    plan = sketch()
    shape = plan.node("Shape", [plan.start])
    first, second = (plan.conv(plan.start, 3, 3) for _ in range(2))
    early = plan.node("Reshape", [first, shape])
    late = plan.node("Reshape", [plan.node("Add", [second, early]), shape])
    plan.head("vehicles", plan.features(plan.conv(late, 3, 3)), 3)
    assert_same(plan.model(), [early, late], images(2))


def test_what_is_replaced_counts_from_there_on_and_nowhere_else(sketch, images):
    model = sketch().chain(["conv", "relu", "conv", "relu", "conv"])
    before = model_bytes(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    reads = [node.input[0] for node in convolutions]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    second = convolutions[1]
    weight, bias = 2 * constants[second.input[1]], constants[second.input[2]] + 1

    walk, whole = Walk(model, reads, images(2)), in_one_run(model, reads, images(2))
    np.testing.assert_array_equal(walk.to(reads[1]), whole[reads[1]])
    walk.replace(second.output[0], [weight, bias])
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        for name, value in ((second.input[1], weight), (second.input[2], bias)):
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(value, name))
    np.testing.assert_array_equal(walk.to(reads[2]), in_one_run(changed, reads, images(2))[reads[2]])
    assert not np.array_equal(walk.to(reads[2]), whole[reads[2]])
    assert model_bytes(model) == before


def test_a_bias_comes_where_none_was_and_none_leaves_what_is_there(sketch, images):
    plan = sketch()
    weight = plan.constant(np.ones((2, 3, 1, 1)))
    layer = plan.node("Conv", [plan.start, weight])
    plan.head("vehicles", plan.features(layer), 2)
    walk = Walk(plan.model(), [plan.start, layer], images(2))
    start = walk.to(plan.start)
    walk.replace(layer, [None, np.array([1.0, -1.0], np.float32)])
    for found, read in zip(walk.to(layer), start, strict=True):
        exact = read.sum(axis=1, keepdims=True) + np.array([1.0, -1.0]).reshape(1, 2, 1, 1)
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
