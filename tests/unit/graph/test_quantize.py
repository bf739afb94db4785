"""INT8 as Q/DQ nodes, in both spellings."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.calibration_table import CalibrationTable, TensorRange
from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.parity import max_difference, run
from edgetl.graph.qdq_placement import place_qdq
from edgetl.graph.quantize import qdq_format, quantize

TARGETS = ["tensorrt", "onnxruntime"]
QDQ = {"QuantizeLinear", "DequantizeLinear"}


def readers(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def makers(model: onnx.ModelProto, node: onnx.NodeProto) -> list[str]:
    wiring = Wiring(model.graph)
    found = (wiring.producer(name) for name in node.input)
    return ["constant" if maker is None else maker.op_type for maker in found]


def executed(model: onnx.ModelProto, folder) -> Counter[str]:
    """The ops that ONNX Runtime's CPU really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("method", ["max", "percentile", "mse"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_outputs_stay_close(target, method, network, images, table_for):
    quantised = quantize(network, table_for(network, method), target)
    assert max_difference(run(network, images(8)), run(quantised, images(8))) < 0.05


@pytest.mark.parametrize("target", TARGETS)
def test_metadata_interface_and_opset_survive(target, network, table_for):
    quantised = quantize(network, table_for(network), target)
    assert quantised.metadata_props == network.metadata_props
    assert quantised.opset_import == network.opset_import
    assert (quantised.graph.input, quantised.graph.output) == (network.graph.input, network.graph.output)


@pytest.mark.parametrize("target", TARGETS)
def test_the_given_model_is_not_changed_and_the_bytes_are_reproducible(target, network, table_for):
    before, table = model_bytes(network), table_for(network)
    assert model_bytes(quantize(network, table, target)) == model_bytes(quantize(network, table, target))
    assert model_bytes(network) == before


@pytest.mark.parametrize("target", TARGETS)
def test_any_batch_size_runs(target, network, images, table_for):
    quantised = quantize(network, table_for(network), target)
    whole = run(quantised, images(5))["vehicles"]
    alone = np.concatenate([run(quantised, images(5)[i : i + 1])["vehicles"] for i in range(5)])
    np.testing.assert_allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_heads_and_normalisation_stay_in_float(target, network, table_for):
    quantised = quantize(network, table_for(network), target)
    for kind in ("Sub", "Div", "Gemm", "Softmax", "Sigmoid"):
        assert not any(QDQ & set(makers(quantised, node)) for node in readers(quantised, kind)), kind


@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_stored_as_int8_per_output_channel(target, network, table_for):
    quantised = quantize(network, table_for(network), target)
    original, wiring = Wiring(network.graph), Wiring(quantised.graph)
    for before, after in zip(readers(network, "Conv"), readers(quantised, "Conv"), strict=True):
        dequantise = wiring.producer(after.input[1])
        steps, scale, zero = (wiring.array(name) for name in dequantise.input)
        assert steps.dtype == np.int8
        assert scale.shape == steps.shape[:1]
        assert not zero.any()
        weight = original.array(before.input[1])
        apart = np.abs(steps * scale[:, None, None, None] - weight).max(axis=(1, 2, 3))
        assert (apart <= scale / 2 * 1.001).all()
    floats = [tensor for tensor in quantised.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert not any(len(tensor.dims) == 4 and np.prod(tensor.dims) > 3 for tensor in floats)


def test_tensorrt_gets_symmetric_int8_at_inputs_and_nothing_at_outputs(network, table_for):
    quantised = quantize(network, table_for(network), "tensorrt")
    wiring = Wiring(quantised.graph)
    for node in readers(quantised, "Conv"):
        assert makers(quantised, node) == ["DequantizeLinear", "DequantizeLinear", "constant"]
    for node in readers(quantised, "QuantizeLinear"):
        assert wiring.array(node.input[2]).dtype == np.int8
        assert wiring.array(node.input[2]) == 0
        assert wiring.producer(node.input[0]).op_type != "Conv"


def test_tensorrt_gets_a_quantised_shortcut_at_every_residual_add(network, table_for):
    quantised = quantize(network, table_for(network), "tensorrt")
    assert [sorted(makers(quantised, node)) for node in readers(quantised, "Add")] == [["Conv", "DequantizeLinear"]] * 2


def test_tensorrt_reads_a_tensor_through_one_pair(network, table_for):
    quantised = quantize(network, table_for(network), "tensorrt")
    sources = [node.input[0] for node in readers(quantised, "QuantizeLinear")]
    assert len(sources) == len(set(sources))


def test_a_downsampling_shortcut_is_the_quantised_one(sketch):
    plan = sketch()
    block = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    deep = plan.conv(plan.node("Relu", [plan.conv(block, 4, 8)]), 8, 8)
    shortcut = plan.conv(block, 4, 8)
    plan.head("vehicles", plan.features(plan.node("Relu", [plan.node("Add", [deep, shortcut])])), 8)
    sources = place_qdq(Wiring(plan.model().graph), "tensorrt").sources
    assert shortcut in sources
    assert deep not in sources


def test_onnx_runtime_gets_unsigned_activations_and_int32_biases(network, table_for):
    quantised = quantize(network, table_for(network), "onnxruntime")
    wiring = Wiring(quantised.graph)
    for node in readers(quantised, "QuantizeLinear"):
        assert wiring.array(node.input[2]).dtype == np.uint8
    for node in readers(quantised, "Conv"):
        activation, weight, bias = (wiring.producer(name) for name in node.input)
        assert wiring.array(bias.input[0]).dtype == np.int32
        product = wiring.array(activation.input[1]) * wiring.array(weight.input[1])
        np.testing.assert_allclose(wiring.array(bias.input[1]), product, rtol=1e-6)


def test_a_tensor_that_is_never_negative_has_zero_point_zero(network, table_for):
    quantised = quantize(network, table_for(network), "onnxruntime")
    wiring = Wiring(quantised.graph)
    for node in readers(quantised, "QuantizeLinear"):
        if wiring.producer(node.input[0]).op_type in {"Relu", "Clip"}:
            assert wiring.array(node.input[2]) == 0


def test_onnx_runtime_really_runs_the_trunk_in_int8(network, table_for, tmp_path):
    ran = executed(quantize(network, table_for(network), "onnxruntime"), tmp_path)
    assert ran["QLinearConv"] == len(readers(network, "Conv"))
    assert (ran["QLinearAdd"], ran["QLinearConcat"]) == (2, 1)
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Add", "Concat"} & ran.keys()
    assert (ran["QuantizeLinear"], ran["DequantizeLinear"]) == (1, 1)


def test_squeeze_and_excitation_runs_in_int8(sketch, images, table_for, tmp_path):
    plan = sketch()
    wide = plan.node("HardSwish", [plan.conv(plan.start, 3, 8)])
    squeezed = plan.conv(plan.node("GlobalAveragePool", [wide]), 8, 8)
    gate = plan.node("HardSigmoid", [squeezed])
    plan.head("vehicles", plan.features(plan.conv(plan.node("Mul", [wide, gate]), 8, 4)), 4)
    model = plan.model()
    quantised = quantize(model, table_for(model), "onnxruntime")
    ran = executed(quantised, tmp_path)
    assert (ran["QLinearConv"], ran["QLinearGlobalAveragePool"], ran["QLinearMul"]) == (3, 1, 1)
    assert max_difference(run(model, images(8)), run(quantised, images(8))) < 0.05


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_linear_layer_inside_the_trunk_is_quantised_per_output(target, transposed, sketch, images, table_for):
    plan = sketch()
    features = plan.features(plan.conv(plan.start, 3, 4))
    weight = plan.random.normal(size=(8, 4))
    inputs = [features, plan.constant(weight if transposed else weight.T), plan.constant(np.ones(8))]
    plan.head("vehicles", plan.node("Relu", [plan.node("Gemm", inputs, transB=transposed)]), 8)
    model = plan.model()
    quantised = quantize(model, table_for(model), target)
    trunk, head = readers(quantised, "Gemm")
    assert makers(quantised, trunk)[:2] == ["DequantizeLinear"] * 2
    assert makers(quantised, head) == ["Relu", "constant", "constant"]
    assert max_difference(run(model, images(8)), run(quantised, images(8))) < 0.05


@pytest.mark.parametrize("target", TARGETS)
def test_a_transformer_block_is_quantised_at_its_linear_layers_alone(target, sketch, images, table_for):
    plan = sketch()
    shape = plan.node("Reshape", [plan.conv(plan.start, 3, 8), "tokens_shape"])
    plan.initializers.append(numpy_helper.from_array(np.array([0, 8, -1]), "tokens_shape"))
    tokens = plan.node("Transpose", [shape], perm=[0, 2, 1])
    normal = plan.node("LayerNormalization", [tokens, plan.constant(np.ones(8)), plan.constant(np.zeros(8))])
    product = plan.node("MatMul", [normal, plan.constant(plan.random.normal(size=(8, 8)))])
    stream = plan.node("Add", [plan.node("Add", [product, plan.constant(np.ones(8))]), tokens])
    pooled = plan.node("ReduceMean", [stream], axes=[1], keepdims=0)
    plan.head("vehicles", pooled, 8)
    model = plan.model()
    quantised = quantize(model, table_for(model), target)
    assert makers(quantised, readers(quantised, "MatMul")[0]) == ["DequantizeLinear"] * 2
    assert makers(quantised, readers(quantised, "ReduceMean")[0]) == ["Add"]
    assert max_difference(run(model, images(8)), run(quantised, images(8))) < 0.05


@pytest.mark.parametrize("target", TARGETS)
def test_weights_shared_through_an_identity_are_found(target, sketch, images, table_for):
    plan = sketch()
    first = plan.conv(plan.start, 3, 3)
    second = plan.conv(first, 3, 3)
    shared = plan.nodes[-2].input[1]
    plan.nodes[-1].input[1] = "alias"
    plan.nodes.insert(0, helper.make_node("Identity", [shared], ["alias"]))
    plan.head("vehicles", plan.features(second), 3)
    model = plan.model()
    quantised = quantize(model, table_for(model), target)
    assert not readers(quantised, "Identity")
    assert max_difference(run(model, images(4)), run(quantised, images(4))) < 0.05


@pytest.mark.parametrize("target", TARGETS)
def test_channels_of_zeros_and_dead_tensors_still_compute(target, sketch, images, table_for):
    plan = sketch()
    dead = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    plan.head("vehicles", plan.features(plan.conv(dead, 4, 4)), 4)
    model = plan.model()
    weight, bias = model.graph.initializer[2:4]
    weight.CopyFrom(numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
    bias.CopyFrom(numpy_helper.from_array(np.array([-1.0, -1e-30, -3e4, 0.0], np.float32), bias.name))
    quantised = quantize(model, table_for(model), target)
    assert max_difference(run(model, images(4)), run(quantised, images(4))) < 0.01


def test_a_bias_too_large_for_int32_steps_widens_the_step(sketch, images, table_for):
    plan = sketch()
    plan.head("vehicles", plan.features(plan.node("Relu", [plan.conv(plan.start, 3, 4)])), 4)
    model = plan.model()
    weight, bias = model.graph.initializer[2:4]
    values = numpy_helper.to_array(weight) * np.float32(1e-12)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    bias.CopyFrom(numpy_helper.from_array(np.full(4, 2.0, np.float32), bias.name))
    quantised = quantize(model, table_for(model), "onnxruntime")
    assert max_difference(run(model, images(4)), run(quantised, images(4))) < 0.01


def test_a_tensor_missing_from_the_table_is_named(network, table_for):
    table = table_for(network)
    gone = table.tensors[2].name
    short = table.model_copy(update={"tensors": tuple(found for found in table.tensors if found.name != gone)})
    with pytest.raises(EdgetlError, match=f"no range for '{gone}'"):
        quantize(network, short, "onnxruntime")


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (-2.0, -1.0), (0.0, np.inf), (np.nan, 1.0)])
@pytest.mark.parametrize("target", TARGETS)
def test_an_impossible_range_is_refused(target, low, high, network, table_for):
    table = table_for(network)
    first = table.tensors[0]
    broken = TensorRange(name=first.name, minimum=first.minimum, maximum=first.maximum, low=low, high=high)
    with pytest.raises(EdgetlError, match="expected finite ends"):
        quantize(network, table.model_copy(update={"tensors": (broken, *table.tensors[1:])}), target)


def test_a_graph_of_another_precision_or_an_old_opset_is_refused(network, sketch, table_for):
    table = table_for(network)
    for target in TARGETS:
        with pytest.raises(EdgetlError, match="quantised already"):
            quantize(quantize(network, table, target), table, target)
    with pytest.raises(EdgetlError, match="FP16 already"):
        quantize(to_fp16(network), table, "tensorrt")
    plan = sketch()
    plan.head("vehicles", plan.features(plan.conv(plan.start, 3, 4)), 4)
    with pytest.raises(EdgetlError, match="opset 12, INT8 needs 13"):
        quantize(plan.model(opset=12), table, "tensorrt")


def test_a_graph_without_layers_and_weights_with_nan_are_refused(sketch, table_for):
    plan = sketch()
    plan.head("vehicles", plan.features(plan.start), 3)
    empty = CalibrationTable(method="max", graph_sha256="", images=(), tensors=())
    with pytest.raises(EdgetlError, match="no Conv"):
        quantize(plan.model(), empty, "tensorrt")
    plan = sketch()
    plan.head("vehicles", plan.features(plan.conv(plan.start, 3, 4)), 4)
    model = plan.model()
    table = table_for(model)
    weight = model.graph.initializer[2]
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, np.nan, np.float32), weight.name))
    with pytest.raises(EdgetlError, match="weight 'constant_2' holds NaN"):
        quantize(model, table, "tensorrt")


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=15)
@given(layers=st.lists(st.sampled_from(["conv", "relu", "relu6", "pool", "add"]), min_size=1, max_size=6))
def test_any_chain_keeps_its_interface_and_its_outputs(target, layers, sketch, images, table_for):
    model = sketch(seed=len(layers)).chain(layers)
    quantised = quantize(model, table_for(model), target)
    assert (quantised.graph.input, quantised.graph.output) == (model.graph.input, model.graph.output)
    assert quantised.metadata_props == model.metadata_props
    assert max_difference(run(model, images(8)), run(quantised, images(8))) < 0.1


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_parses_and_builds_every_precision(precision, network, table_for):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    made = {
        "fp32": lambda: network,
        "fp16": lambda: to_fp16(network),
        "int8": lambda: quantize(network, table_for(network), "tensorrt"),
    }[precision]()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    description = builder.create_network(0)
    parser = trt.OnnxParser(description, logger)
    assert parser.parse(model_bytes(made)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, 16, 16), (1, 3, 16, 16), (8, 3, 16, 16))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(description, config) is not None


def test_a_graph_tells_whose_int8_it_is_written_in(network, table_for):
    assert qdq_format(network) is None
    for target in ("tensorrt", "onnxruntime"):
        assert qdq_format(quantize(network, table_for(network), target)) == target
