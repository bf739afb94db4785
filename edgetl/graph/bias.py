"""Bias correction: the mean of what rounding weights adds to a layer's outputs is taken off its bias."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgetl.graph.model import FreshNames, Wiring, attribute
from edgetl.graph.noise import results
from edgetl.graph.placement import place
from edgetl.graph.quantise import rounding_error

Floats = NDArray[np.float32]

_AVERAGED_OVER = (0, 2, 3)


def corrected_biases(model: onnx.ModelProto, images: Floats) -> dict[str, Floats]:
    """Biases that make up for weights in INT8, of every convolution, by the tensor it makes.

    E[(W + e) x] - E[W x] = e E[x] for each output channel (Nagel et al., ICCV 2019, section 4.2), with E[x] of each
    input channel over the images. Few weights feed a channel of a depthwise convolution, so there the mean error is
    largest.

    Args:
        images: float32 [n,3,H,W] in [0,1].
    """
    wiring = Wiring(model.graph)
    layers = [p for p in place(wiring, "tensorrt").layers if wiring.nodes[p].op_type == "Conv"]
    inputs = results(model, images, list(dict.fromkeys(wiring.nodes[p].input[0] for p in layers))) if layers else {}
    found = {}
    for position in layers:
        node = wiring.nodes[position]
        mean = inputs[node.input[0]].mean(axis=_AVERAGED_OVER, dtype=np.float64)
        bias = wiring.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.float32(0)
        found[node.output[0]] = np.asarray(bias - _mean_error(wiring, position, mean), np.float32)
    return found


def with_biases(model: onnx.ModelProto, biases: Mapping[str, Floats]) -> onnx.ModelProto:
    """The model with other biases of some convolutions, by the tensor that each makes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = FreshNames(model.graph)
    for node in copy.graph.node:
        if node.output[0] in biases:
            name = names.fresh(f"{node.output[0]}_bias")
            copy.graph.initializer.append(numpy_helper.from_array(biases[node.output[0]], name))
            del node.input[2:]
            node.input.append(name)
    return copy


def _mean_error(wiring: Wiring, position: int, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    node = wiring.nodes[position]
    error = rounding_error(wiring.array(node.input[1]), 0)
    error = error.sum(axis=tuple(range(2, error.ndim)), dtype=np.float64)  # outputs x inputs of a group
    groups = attribute(node, "group", 1)
    own = np.repeat(mean.reshape(groups, -1), len(error) // groups, axis=0)
    return np.asarray((error * own).sum(axis=1))
