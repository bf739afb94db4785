"""Which layers INT8 harms, and graphs in which some are not INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgetl.graph.parity import max_difference, run
from edgetl.graph.sensitivity import layer_groups, layer_sensitivities, mixed_precision_graph

TARGETS = ["tensorrt", "onnxruntime"]


@pytest.fixture
def one_bad_layer(sketch) -> tuple[onnx.ModelProto, str]:
    """A chain in which the third layer reads one channel that reaches 500 times as far and hardly counts."""
    model = sketch(1).chain(["relu", "conv", "relu", "conv", "relu", "conv", "relu"])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    _, second, third, _ = (node for node in model.graph.node if node.op_type == "Conv")
    for name, factor, axis in ((second.input[1], 500.0, 0), (second.input[2], 500.0, 0), (third.input[1], 0.002, 1)):
        value = numpy_helper.to_array(constants[name]).copy()
        value[(slice(None),) * axis + (0,)] *= np.float32(factor)
        constants[name].CopyFrom(numpy_helper.from_array(value, name))
    return model, third.output[0]


@pytest.mark.parametrize("target", TARGETS)
def test_groups_are_all_layers_once_and_share_the_tensor_they_read(target, network):
    groups = layer_groups(network, target)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(node.output[0] for node in network.graph.node if node.op_type == "Conv")
    readers = {node.output[0]: node.input[0] for node in network.graph.node}
    assert all(len({readers[name] for name in group}) == 1 for group in groups)


@pytest.mark.parametrize("target", TARGETS)
def test_the_layer_that_int8_harms_comes_first(target, one_bad_layer, images, table_for):
    model, bad = one_bad_layer
    told = []
    losses = layer_sensitivities(model, table_for(model), target, images(4), told.append)
    assert bad in losses[0].layers
    assert [loss.snr_db for loss in losses] == sorted(loss.snr_db for loss in losses)
    assert len(told) == len(losses) == len(layer_groups(model, target))
    assert all(loss.latency is not None and loss.latency > -0.05 for loss in losses)


@pytest.mark.parametrize("target", TARGETS)
def test_returning_the_bad_layer_brings_the_outputs_back(target, one_bad_layer, images, table_for):
    model, _ = one_bad_layer
    table, exact = table_for(model), run(model, images(8))
    bad = layer_sensitivities(model, table, target, images(4))[0].layers
    whole = max_difference(exact, run(mixed_precision_graph(model, table, target, ()), images(8)))
    assert max_difference(exact, run(mixed_precision_graph(model, table, target, bad), images(8))) < 0.7 * whole


def test_for_tensorrt_a_returned_layer_and_its_activation_are_fp16(network, table_for):
    first = next(node for node in network.graph.node if node.op_type == "Conv").output[0]
    mixed = mixed_precision_graph(network, table_for(network), "tensorrt", [first])
    weights = [tensor for tensor in mixed.graph.initializer if len(tensor.dims) == 4 and np.prod(tensor.dims) > 3]
    assert sorted(tensor.data_type for tensor in weights) == sorted(
        [TensorProto.FLOAT16] + [TensorProto.INT8] * (len(weights) - 1)
    )
    graph = onnx.shape_inference.infer_shapes(mixed, check_type=True, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    relu = next(node for node in mixed.graph.node if node.op_type == "Relu")
    assert kinds[relu.output[0]] == TensorProto.FLOAT16
    assert not any(
        kinds.get(node.output[0]) == TensorProto.FLOAT16 for node in mixed.graph.node if node.op_type == "Add"
    )


def test_for_onnx_runtime_and_where_fp16_overflows_a_returned_layer_is_fp32(network, table_for):
    first = next(node for node in network.graph.node if node.op_type == "Conv").output[0]
    for mixed in (
        mixed_precision_graph(network, table_for(network), "onnxruntime", [first]),
        mixed_precision_graph(network, table_for(network), "tensorrt", [first], float32=[first]),
    ):
        kinds = {tensor.data_type for tensor in mixed.graph.initializer}
        assert TensorProto.FLOAT16 not in kinds
        assert TensorProto.INT8 in kinds


def test_tensorrt_builds_a_mix(network, table_for, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime

    groups = layer_groups(network, "tensorrt")
    mixed = mixed_precision_graph(network, table_for(network), "tensorrt", [*groups[0], *groups[3]])
    onnx.save(mixed, tmp_path / "mixed.onnx")
    assert build_engine(get_runtime("tensorrt-rtx"), tmp_path / "mixed.onnx", tmp_path / "engine", BuildOptions())
