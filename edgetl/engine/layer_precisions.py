"""The precision of each layer of a prepared graph, read from its types and Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from edgetl.artifacts.engine_manifest import EngineLayer, EngineTensor
from edgetl.errors import EdgetlError

_PRECISIONS: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: "bool",
}
# Runtimes remove these or fuse them into a neighbour: they are no layers of an engine.
_PLUMBING = frozenset({"Constant", "Identity", "QuantizeLinear", "DequantizeLinear", "Cast"})
_MULTIPLY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def read_structure(path: Path) -> onnx.ModelProto:
    """Read a graph without its external data.

    Raises:
        EdgetlError: the file is no ONNX model.
    """
    try:
        return onnx.load_model(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise EdgetlError(f"{path} is not an ONNX model or is truncated: {' '.join(str(error).split())}") from error


def graph_layers(model: onnx.ModelProto) -> tuple[EngineLayer, ...]:
    """List the layers that compute, each with its precision.

    A layer that multiplies is int8 where both factors come out of DequantizeLinear: TensorRT's explicit quantization
    fuses this pattern. Any other layer computes in the type of its output.
    """
    types = _types(model)
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    layers = []
    for number, node in enumerate(model.graph.node):
        if node.op_type in _PLUMBING:
            continue
        precision = types.get(node.output[0], "unknown")
        # The third input is the bias, which stays in float or int32.
        if node.op_type in _MULTIPLY and all(made.get(name) == "DequantizeLinear" for name in node.input[:2]):
            precision = "int8"
        layers.append(EngineLayer(name=node.name or f"node {number}", operator=node.op_type, precision=precision))
    return tuple(layers)


def graph_tensors(model: onnx.ModelProto) -> tuple[tuple[EngineTensor, ...], tuple[EngineTensor, ...]]:
    """The graph's inputs and outputs."""
    # Up to IR version 3 every initializer is listed as an input too.
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_tensor(value) for value in model.graph.input if value.name not in constants)
    return inputs, tuple(_tensor(value) for value in model.graph.output)


def _tensor(value: onnx.ValueInfoProto) -> EngineTensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in kind.shape.dim)
    return EngineTensor(name=value.name, type=_PRECISIONS.get(kind.elem_type, "unknown"), shape=shape)


def graph_precisions(model: onnx.ModelProto) -> frozenset[str]:
    """The precisions in a graph, out of fp32, fp16 and int8."""
    found = {layer.precision for layer in graph_layers(model)}
    # Scalars do not count: a graph in FP16 may keep a scale or an epsilon in FP32.
    found |= {_PRECISIONS.get(tensor.data_type, "unknown") for tensor in model.graph.initializer if tensor.dims}
    quantised = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    return frozenset(({"fp32", "fp16"} & found) | ({"int8"} if quantised else set()))


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every tensor by name, as far as ONNX can infer it."""
    # Types do not depend on the constants' values. As inputs they cost no copy, and protobuf's limit of 2 GB is far.
    constants = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer]
    named = {value.name for value in constants}
    inputs = [value for value in model.graph.input if value.name not in named]
    try:
        graph = helper.make_graph(model.graph.node, "types", [*inputs, *constants], model.graph.output)
        light = helper.make_model(
            graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
        )
        inferred = onnx.shape_inference.infer_shapes(light).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model.graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: _PRECISIONS.get(value.type.tensor_type.elem_type, "unknown") for value in values}
