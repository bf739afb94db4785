"""FP16 written in the graph's types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.parity import max_difference, run
from edgetl.graph.quantize import quantize


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}


def test_the_trunk_is_float16_and_inputs_and_outputs_stay_float32(network):
    half = to_fp16(network)
    kinds = types(half)
    assert kinds["images"] == kinds["vehicles"] == kinds["signs"] == TensorProto.FLOAT
    for node in half.graph.node:
        if node.op_type in {"Sub", "Div", "Conv", "Relu", "Clip", "Add", "MaxPool", "Concat", "GlobalAveragePool"}:
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node


def test_heads_keep_their_float32_weights(network):
    half = to_fp16(network)
    wiring = Wiring(half.graph)
    for node in half.graph.node:
        if node.op_type == "Gemm":
            np.testing.assert_array_equal(wiring.array(node.input[1]), Wiring(network.graph).array(node.input[1]))


def test_the_outputs_stay_close(network, images):
    assert max_difference(run(network, images(8)), run(to_fp16(network), images(8))) < 5e-3


def test_a_trunk_alone_keeps_the_name_and_type_of_its_output(sketch, images):
    plan = sketch()
    plan.features(plan.node("Relu", [plan.conv(plan.start, 3, 4)]))
    plan.outputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4]))
    trunk = plan.model()
    half = to_fp16(trunk)
    assert half.graph.output == trunk.graph.output
    assert max_difference(run(trunk, images(2)), run(half, images(2))) < 5e-3


def test_metadata_interface_and_opset_survive(network):
    half = to_fp16(network)
    assert half.metadata_props == network.metadata_props
    assert half.opset_import == network.opset_import
    assert (half.graph.input, half.graph.output) == (network.graph.input, network.graph.output)


def test_the_given_model_is_not_changed_and_the_bytes_are_reproducible(network):
    before = model_bytes(network)
    assert model_bytes(to_fp16(network)) == model_bytes(to_fp16(network))
    assert model_bytes(network) == before


def test_a_layer_normalisation_stays_in_float32(sketch, images):
    plan = sketch()
    hidden = plan.gemm(plan.features(plan.conv(plan.start, 3, 8)), 8, 8)
    scale, bias = plan.constant(np.ones(8)), plan.constant(np.zeros(8))
    plan.head("vehicles", plan.node("Relu", [plan.node("LayerNormalization", [hidden, scale, bias])]), 8)
    model = plan.model()
    half = to_fp16(model)
    kinds = types(half)
    normal = next(node for node in half.graph.node if node.op_type == "LayerNormalization")
    assert kinds[normal.output[0]] == TensorProto.FLOAT
    assert max_difference(run(model, images(3)), run(half, images(3))) < 5e-3


def test_an_input_that_its_operator_wants_in_float32_stays_so(sketch, images):
    plan = sketch()
    scales = plan.constant(np.array([1.0, 1.0, 2.0, 2.0]))
    larger = plan.node("Resize", [plan.conv(plan.start, 3, 4), "", scales], mode="nearest")
    plan.head("vehicles", plan.features(larger), 4)
    model = plan.model()
    assert max_difference(run(model, images(2)), run(to_fp16(model), images(2))) < 5e-3


def test_weights_shared_through_an_identity_are_stored_once(sketch):
    plan = sketch()
    first = plan.conv(plan.start, 3, 3)
    second = plan.conv(first, 3, 3)
    shared = plan.nodes[-2].input[1]
    plan.nodes[-1].input[1] = "alias"
    plan.nodes.insert(0, helper.make_node("Identity", [shared], ["alias"]))
    plan.head("vehicles", plan.features(second), 3)
    half = to_fp16(plan.model())
    assert len([tensor for tensor in half.graph.initializer if list(tensor.dims) == [3, 3, 3, 3]]) == 1
    assert not any(node.op_type == "Identity" for node in half.graph.node)


def test_a_weight_beyond_float16_is_refused(network):
    large = onnx.ModelProto()
    large.CopyFrom(network)
    weight = numpy_helper.to_array(large.graph.initializer[2]).copy()
    weight[0, 0, 0, 0] = 7e4
    large.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, large.graph.initializer[2].name))
    with pytest.raises(EdgetlError, match="holds 70000"):
        to_fp16(large)


def test_a_graph_of_another_precision_is_refused(network, table_for):
    with pytest.raises(EdgetlError, match="FP16 already"):
        to_fp16(to_fp16(network))
    with pytest.raises(EdgetlError, match="quantised already"):
        to_fp16(quantize(network, table_for(network), "tensorrt"))


@settings(max_examples=15)
@given(layers=st.lists(st.sampled_from(["conv", "relu", "relu6", "pool", "add"]), min_size=1, max_size=6))
def test_any_chain_keeps_its_outputs_to_half_precision(layers, sketch, images):
    model = sketch(seed=len(layers)).chain(layers)
    half = to_fp16(model)
    assert max_difference(run(model, images(2)), run(half, images(2))) < 1e-2
