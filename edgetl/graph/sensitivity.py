"""How much INT8 harms each layer: signal-to-noise of the results with this layer alone in INT8."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.config import QdqFormat
from edgetl.graph.cost import estimate_relative_latency
from edgetl.graph.fp16 import layers_to_fp16
from edgetl.graph.model import Wiring
from edgetl.graph.qdq_placement import place_qdq
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results


@dataclass(frozen=True)
class LayerSensitivity:
    """The loss of layers that read one tensor (named by the tensors they make), so are in INT8 together or not at all.

    ``snr_db``: signal-to-noise of the graph's results with these layers alone in INT8. ``latency``: the fraction by
    which the estimated latency grows when they leave INT8; None where the graph does not tell its sizes.
    """

    layers: tuple[str, ...]
    snr_db: float
    latency: float | None


def layer_sensitivities(
    model: onnx.ModelProto,
    table: CalibrationTable,
    target: QdqFormat,
    images: Float32Array,
    watch: Callable[[int], object] = bool,
) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every group of layers, the most harmful first, by one pass over the images for each.

    Args:
        images: float32 [n,3,H,W] in [0,1].
        watch: is called with 1 after every group.
    """
    groups = layer_groups(model, target)
    every = [name for group in layer_groups(model, "tensorrt") for name in group]
    exact = results(model, images)
    estimate = estimate_relative_latency(quantize(model, table, target))
    losses = []
    for group in groups:
        # In TensorRT's QDQ format for either target: it quantises what the layers read and nothing else.
        alone = quantize(model, table, "tensorrt", [name for name in every if name not in group])
        noise = mean_snr_db(exact, results(alone, images, tuple(exact)))
        # With a single group nothing would be left in INT8 to compare with.
        rest = mixed_precision_graph(model, table, target, group) if len(groups) > 1 else None
        mixed = estimate_relative_latency(rest) if rest else None
        losses.append(LayerSensitivity(group, noise, mixed / estimate - 1 if mixed and estimate else None))
        watch(1)
    return tuple(sorted(losses, key=lambda loss: loss.snr_db))


def layer_groups(model: onnx.ModelProto, target: QdqFormat) -> tuple[tuple[str, ...], ...]:
    """The layers that can be INT8, grouped by the tensor that they read, in the order of the graph."""
    wiring = Wiring(model.graph)
    placement = place_qdq(wiring, target)
    groups: dict[str, list[str]] = {}
    for position in placement.layers:
        node = wiring.nodes[position]
        groups.setdefault(placement.sources[node.input[0]], []).append(node.output[0])
    return tuple(map(tuple, groups.values()))


def mixed_precision_graph(
    model: onnx.ModelProto,
    table: CalibrationTable,
    target: QdqFormat,
    excluded: Collection[str],
    float32: Collection[str] = (),
) -> onnx.ModelProto:
    """The INT8 model without some layers: these are FP16 for TensorRT, and FP32 for ONNX Runtime's CPU.

    Args:
        excluded: layers that are not INT8, by the tensor they make. If these are all, nothing is quantised.
        float32: those among them that overflow in FP16.
    """
    none_left = excluded and not place_qdq(Wiring(model.graph), target, excluded).layers
    quantised = model if none_left else quantize(model, table, target, excluded)
    halves = [name for name in excluded if name not in float32]
    return layers_to_fp16(quantised, halves) if target == "tensorrt" and halves else quantised
