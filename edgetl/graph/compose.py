"""Deployment graphs: one trunk and the heads on it, put together node by node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import FEATURES, Head, Preprocessing

Array = npt.NDArray[np.float32]


def compose(
    trunk: onnx.ModelProto, heads: Sequence[Head], weights: Mapping[str, Array], preprocessing: Preprocessing
) -> onnx.ModelProto:
    """A deployment graph: the trunk once, and for each head a linear layer and its probabilities.

    Args:
        trunk: graph from ``images`` (N x 3 x S x S, RGB in [0, 1]) to ``trunk/features`` (N x D).
        heads: heads to put on it; each becomes an output of the head's name, N x (number of its classes).
        weights: ``NAME.weight`` (classes x D) and ``NAME.bias`` (classes), temperature included.
        preprocessing: recorded in the metadata, with the labels of every output.
    """
    model = onnx.ModelProto()
    model.CopyFrom(trunk)
    graph = model.graph
    del graph.output[:]
    for head in heads:
        _append_head(graph, head, weights)
    _describe(model, heads, preprocessing)
    return model


def _append_head(graph: onnx.GraphProto, head: Head, weights: Mapping[str, Array]) -> None:
    prefix = f"head/{head.name}"
    for part in ("weight", "bias"):
        values = np.ascontiguousarray(weights[f"{head.name}.{part}"], dtype=np.float32)
        graph.initializer.append(numpy_helper.from_array(values, f"{prefix}/{part}"))
    gemm = [FEATURES, f"{prefix}/weight", f"{prefix}/bias"]
    graph.node.append(helper.make_node("Gemm", gemm, [f"{prefix}/logits"], name=f"{prefix}/linear", transB=1))
    if head.activation == "softmax":
        activation = helper.make_node("Softmax", [f"{prefix}/logits"], [head.name], name=f"{prefix}/softmax", axis=1)
    else:
        activation = helper.make_node("Sigmoid", [f"{prefix}/logits"], [head.name], name=f"{prefix}/sigmoid")
    graph.node.append(activation)
    shape = [graph.input[0].type.tensor_type.shape.dim[0].dim_param or "N", len(head.classes)]
    graph.output.append(helper.make_tensor_value_info(head.name, TensorProto.FLOAT, shape))


def _describe(model: onnx.ModelProto, heads: Sequence[Head], preprocessing: Preprocessing) -> None:
    """Labels and preprocessing travel in the file, so that device code needs nothing beside it."""
    labels = {head.name: head.classes for head in heads}
    notes = {"edgetl.labels": json.dumps(labels, ensure_ascii=False), "edgetl.input": preprocessing.model_dump_json()}
    helper.set_model_props(model, notes)
