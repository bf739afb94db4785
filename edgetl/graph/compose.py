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
    """The trunk with every head appended: each is a linear layer and an activation that makes probabilities.

    Args:
        trunk: graph from ``images`` (N x 3 x S x S, RGB in [0, 1]) to the features (N x D) that heads read.
        heads: each becomes an output of the head's name, N x (number of its classes). A head that reads another
            one's probabilities comes after that one.
        weights: ``NAME.weight`` (classes x D) and ``NAME.bias`` (classes), temperature included.
        preprocessing: recorded in the metadata, with the labels of every output.
    """
    model = onnx.ModelProto()
    model.CopyFrom(trunk)
    graph = model.graph
    del graph.output[:]
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "N"
    for head in heads:
        prefix, features, logits = f"head/{head.name}", head.features, f"head/{head.name}/logits"
        for part in ("weight", "bias"):
            values = np.ascontiguousarray(weights[f"{head.name}.{part}"], dtype=np.float32)
            graph.initializer.append(numpy_helper.from_array(values, f"{prefix}/{part}"))
        if head.first_level is not None:
            features = f"{prefix}/features"
            both = [head.features, head.first_level]
            graph.node.append(helper.make_node("Concat", both, [features], name=f"{prefix}/beside", axis=1))
        gemm = [features, f"{prefix}/weight", f"{prefix}/bias"]
        graph.node.append(helper.make_node("Gemm", gemm, [logits], name=f"{prefix}/linear", transB=1))
        name, axis = f"{prefix}/{head.activation}", 1 if head.activation == "softmax" else None
        activation = head.activation.capitalize()  # Softmax or Sigmoid
        graph.node.append(helper.make_node(activation, [logits], [head.name], name=name, axis=axis))
        shape = [batch, len(head.classes)]
        graph.output.append(helper.make_tensor_value_info(head.name, TensorProto.FLOAT, shape))
    describe(model, {head.name: head.classes for head in heads}, {}, preprocessing)
    return model
