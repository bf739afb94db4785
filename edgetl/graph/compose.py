"""Deployment graphs: one trunk and the heads on it, put together node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import ClassificationHead, Preprocessing
from edgetl.graph.metadata import describe


def compose(
    trunk: onnx.ModelProto,
    heads: Sequence[ClassificationHead],
    weights: Mapping[str, Float32Array],
    preprocessing: Preprocessing,
) -> onnx.ModelProto:
    """Every head on its trunk: a linear layer and its probabilities each.

    Args:
        trunk: graph from ``images`` (N x 3 x S x S, RGB in [0, 1]) to the features (N x D) that heads read.
        heads: heads to put on it; each becomes an output of the head's name, N x (number of its classes). A head
            that reads another one's probabilities stands behind that one.
        weights: ``NAME.weight`` (classes x D) and ``NAME.bias`` (classes), temperature included.
        preprocessing: recorded in the metadata, with the labels of every output.
    """
    model = onnx.ModelProto()
    model.CopyFrom(trunk)
    graph = model.graph
    del graph.output[:]
    for head in heads:
        _append_head(graph, head, weights)
    describe(model, {head.name: head.classes for head in heads}, {}, preprocessing)
    return model


def _append_head(graph: onnx.GraphProto, head: ClassificationHead, weights: Mapping[str, Float32Array]) -> None:
    prefix = f"head/{head.name}"
    for part in ("weight", "bias"):
        values = np.ascontiguousarray(weights[f"{head.name}.{part}"], dtype=np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"{prefix}/{part}"))
    features = head.features
    if head.first_level is not None:
        features = f"{prefix}/features"
        both = [head.features, head.first_level]
        graph.node.append(helper.make_node("Concat", both, [features], name=f"{prefix}/beside", axis=1))
    gemm = [features, f"{prefix}/weight", f"{prefix}/bias"]
    graph.node.append(helper.make_node("Gemm", gemm, [f"{prefix}/logits"], name=f"{prefix}/linear", transB=1))
    if head.activation == "softmax":
        activation = helper.make_node("Softmax", [f"{prefix}/logits"], [head.name], name=f"{prefix}/softmax", axis=1)
    else:
        activation = helper.make_node("Sigmoid", [f"{prefix}/logits"], [head.name], name=f"{prefix}/sigmoid")
    graph.node.append(activation)
    shape = [graph.input[0].type.tensor_type.shape.dim[0].dim_param or "N", len(head.classes)]
    graph.output.append(helper.make_tensor_value_info(head.name, TensorProto.FLOAT, shape))
