"""Where Q/DQ goes: what TensorRT's parser makes of it, what ONNX Runtime really runs, and what stays in float."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.parity import Reference
from edgetl.graph.quantize import quantize

TARGETS = ["tensorrt", "onnxruntime"]
KINDS = {"Conv", "Gemm", "MatMul"}


def walk(model: onnx.ModelProto, folder: Path):
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    spec = importlib.util.spec_from_file_location("rtx_walk", Path(__file__).parents[3] / "benchmarks" / "rtx_walk.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rtx_walk"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    onnx.save(model, folder / "walked.onnx")
    return module.walk(folder / "walked.onnx")


def detector(sketch) -> onnx.ModelProto:
    """Two scales of raw boxes, decoded with Exp and pixel coordinates, and NonMaxSuppression behind them."""
    plan = sketch()
    stem = plan.node("LeakyRelu", [plan.conv(plan.start, 3, 8)], alpha=0.1)
    deep = plan.node("LeakyRelu", [plan.conv(plan.node("MaxPool", [stem], kernel_shape=[2, 2], strides=[2, 2]), 8, 8)])
    joined = plan.node("Add", [plan.conv(deep, 8, 8), deep])
    up = plan.node("Resize", [joined, "", plan.constant(np.array([1.0, 1.0, 2.0, 2.0]))], mode="nearest")
    both = plan.node("Concat", [up, stem], axis=1)

    def integers(name: str, values: list[int]) -> str:
        plan.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    parts = []
    for tensor, channels in ((joined, 8), (both, 16)):
        raw = plan.node("Reshape", [plan.conv(tensor, channels, 6), integers(f"flat_{channels}", [0, 6, -1])])
        parts.append(plan.node("Transpose", [raw], perm=[0, 2, 1]))
    whole = plan.node("Concat", parts, axis=1)
    split = [integers("four", [4]), integers("six", [6]), integers("axis", [2]), integers("zero", [0])]
    raw_boxes = plan.node("Slice", [whole, split[3], split[0], split[2]])
    wide = plan.node("Mul", [plan.node("Exp", [raw_boxes]), plan.constant(np.array(416.0))])
    boxes = plan.node("Add", [wide, plan.constant(np.array([0.5, 0.5, 8.5, 8.5]))], output="boxes")
    classes = plan.node("Sigmoid", [plan.node("Slice", [whole, split[0], split[1], split[2]])])
    scores = plan.node("Transpose", [classes], perm=[0, 2, 1], output="scores")
    limits = [integers("most", [5]), plan.constant(np.array([0.5])), plan.constant(np.array([0.1]))]
    plan.node("NonMaxSuppression", [boxes, scores, *limits], output="selected")
    plan.outputs += [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", "B", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2, "B"]),
        helper.make_tensor_value_info("selected", TensorProto.INT64, ["K", 3]),
    ]
    return plan.model()


def behind_the_last_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Nodes from which no Conv, Gemm or MatMul is reached: found by following every way, not as the code does."""
    consumers = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def reaches(node: onnx.NodeProto) -> bool:
        after = [reader for name in node.output for reader in consumers.get(name, [])]
        return any(reader.op_type in KINDS or reaches(reader) for reader in after)

    return [node for node in model.graph.node if node.op_type not in KINDS and not reaches(node)]


def makers(model: onnx.ModelProto) -> dict[str, str]:
    return {name: node.op_type for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("target", TARGETS)
def test_the_decoding_of_boxes_is_never_quantised(target, sketch, images, table_for):
    model = detector(sketch)
    quantised = quantize(model, table_for(model), target)
    made = makers(quantised)
    after = {node.output[0] for node in behind_the_last_layers(model)}
    tail = [node for node in quantised.graph.node if set(node.output) & after]
    assert len(tail) == len(after) >= 12
    for node in tail:
        assert not {"QuantizeLinear", "DequantizeLinear"} & {made.get(name, "") for name in node.input}, node
    assert sum(op == "QuantizeLinear" for op in made.values()) >= 3  # the network before it is


def test_the_decoding_of_boxes_stays_in_float32_in_fp16(sketch):
    model = detector(sketch)
    half = to_fp16(model)
    inferred = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    after = {node.output[0] for node in behind_the_last_layers(model)} - {"selected"}
    assert after <= kinds.keys()
    assert {kinds[name] for name in after} == {TensorProto.FLOAT}
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert {kinds[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("target", TARGETS)
def test_the_outputs_of_a_detector_survive_int8(target, sketch, images, table_for):
    model = detector(sketch)
    exact = Reference(model).run(images(1))
    found = Reference(quantize(model, table_for(model), target)).run(images(1))
    assert np.abs(exact["scores"] - found["scores"]).max() < 0.1
    assert np.abs(np.log(exact["boxes"] - 0.4) - np.log(found["boxes"] - 0.4))[..., :2].max() < 0.3


def test_a_loop_at_the_end_is_a_part_of_the_tail(sketch):
    plan = sketch()
    features = plan.node("GlobalAveragePool", [plan.conv(plan.start, 3, 4)])
    flat = plan.node("Flatten", [features])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Mul", ["held", flat], ["next"]),  # captures a tensor of the graph
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    plan.initializers.append(numpy_helper.from_array(np.array(3, np.int64), "trips"))
    plan.node("Loop", ["trips", "", flat], output="looped", body=body)
    plan.outputs.append(helper.make_tensor_value_info("looped", TensorProto.FLOAT, ["N", 4]))
    model = plan.model()
    wiring = Wiring(model.graph)
    assert {wiring.nodes[position].op_type for position in wiring.tail} == {"Flatten", "Loop"}
    assert wiring.results() == (features,)


def test_pooling_behind_the_last_convolution_belongs_to_the_network(sketch):
    """SqueezeNet's classifier is a Conv, whose classes are averaged over the image: INT8 is meant to speed it up."""
    plan = sketch()
    logits = plan.node("Flatten", [plan.node("GlobalAveragePool", [plan.node("Relu", [plan.conv(plan.start, 3, 4)])])])
    plan.node("Softmax", [logits], output="vehicles")
    plan.outputs.append(helper.make_tensor_value_info("vehicles", TensorProto.FLOAT, ["N", 4]))
    wiring = Wiring(plan.model().graph)
    assert {wiring.nodes[position].op_type for position in wiring.tail} == {"Flatten", "Softmax"}


def test_tensorrt_finds_every_layer_of_the_trunk_in_int8_and_no_quantiser_alone(network, table_for, tmp_path):
    found = walk(quantize(network, table_for(network), "tensorrt"), tmp_path)
    assert len(found.int8) == sum(node.op_type == "Conv" for node in network.graph.node)
    assert (len(found.floating), found.half_done, found.orphans) == (2, (), ())  # the heads


def test_tensorrt_finds_every_convolution_of_a_detector_in_int8(sketch, table_for, tmp_path):
    model = detector(sketch)
    found = walk(quantize(model, table_for(model), "tensorrt"), tmp_path)
    assert len(found.int8) == 5
    assert (found.half_done, found.floating, found.orphans) == ((), (), ())


def test_the_walk_sees_what_is_wrong(network, table_for, tmp_path):
    """A weight in float, and a pair that nobody gains from."""
    model = quantize(network, table_for(network), "tensorrt")
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    integers, scale, _ = next(node for node in model.graph.node if node.output[0] == last.input[1]).input
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = constants[integers] * constants[scale][:, None, None, None]
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "plain"))
    last.input[1] = "plain"
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    pair = next(node for node in model.graph.node if node.op_type == "QuantizeLinear").input[1:]
    position = [node.output[0] for node in model.graph.node].index(softmax.output[0])
    model.graph.node.insert(position, helper.make_node("QuantizeLinear", [softmax.input[0], *pair], ["lone_q"]))
    model.graph.node.insert(position + 1, helper.make_node("DequantizeLinear", ["lone_q", *pair], ["lone"]))
    model.graph.node[position + 2].input[0] = "lone"
    found = walk(model, tmp_path)
    assert len(found.half_done) == 1
    assert len(found.orphans) == 1


@settings(max_examples=10)
@given(layers=st.lists(st.sampled_from(["conv", "relu", "relu6", "pool", "add"]), min_size=1, max_size=6))
def test_tensorrt_finds_no_float_layer_and_no_lone_quantiser_in_any_chain(layers, sketch, table_for, tmp_path_factory):
    model = sketch(seed=len(layers)).chain(layers)
    found = walk(quantize(model, table_for(model), "tensorrt"), tmp_path_factory.mktemp("chain"))
    assert len(found.int8) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert (len(found.floating), found.half_done, found.orphans) == (1, (), ())
