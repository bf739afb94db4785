"""FP16: what does not fit is found by running, and stays in FP32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import model_bytes
from edgetl.graph.overflow import overflowing
from edgetl.graph.parity import max_difference, run


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


@pytest.fixture
def large(sketch) -> tuple[onnx.ModelProto, str, str]:
    """A network whose second Conv reaches a hundred thousand, and a third that makes that small again."""
    plan = sketch()
    first = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    huge = plan.conv(first, 4, 4)
    small = plan.conv(huge, 4, 4)
    plan.head("vehicles", plan.features(plan.node("Relu", [small])), 4)
    model = plan.model()
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node, factor in ((convolutions[1], 5e4), (convolutions[2], 2e-5)):
        for name in node.input[1:]:
            scaled = numpy_helper.to_array(constants[name]) * np.float32(factor)
            constants[name].CopyFrom(numpy_helper.from_array(scaled, name))
    return model, huge, first


def test_a_network_without_large_values_keeps_nothing(network, images):
    assert overflowing(network, images(4)) == {}


def test_who_makes_and_who_reads_too_large_a_tensor_stays_in_fp32(large, images):
    model, huge, first = large
    kept = overflowing(model, images(4))
    ops = {node.output[0]: node.op_type for node in model.graph.node}
    assert [ops[name] for name in kept] == ["Conv", "Conv"]
    assert all(f"{huge} reaches " in reason for reason in kept.values())
    half = to_fp16(model, kept)
    assert kinds(half)[huge] == TensorProto.FLOAT
    assert kinds(half)[f"{first}_half"] == TensorProto.FLOAT16
    assert max_difference(run(model, images(4)), run(half, images(4))) < 5e-3


def test_without_that_the_outputs_would_be_wrong(large, images):
    model, huge, _ = large
    half = to_fp16(model)
    watched = onnx.ModelProto()
    watched.CopyFrom(half)
    watched.graph.output.append(onnx.helper.make_tensor_value_info(f"{huge}_half", TensorProto.FLOAT16, None))
    found = run(watched, images(4))[f"{huge}_half"]
    assert not np.isfinite(found).all()


def test_a_weight_beyond_fp16_keeps_its_layer_in_fp32(network, images):
    model = onnx.ModelProto()
    model.CopyFrom(network)
    weight = model.graph.initializer[2]
    value = numpy_helper.to_array(weight).copy()
    value[0, 0, 0, 0] = 7e4
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    kept = overflowing(model, images(2))
    assert any(reason == f"{weight.name} reaches 7e+04" for reason in kept.values())
    to_fp16(model, kept)


def test_finding_leaves_the_model_alone_and_is_the_same_every_time(large, images):
    model = large[0]
    before = model_bytes(model)
    assert overflowing(model, images(3)) == overflowing(model, images(3)[::-1])
    assert model_bytes(model) == before
