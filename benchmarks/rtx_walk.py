"""A walk over the network that TensorRT-RTX parses from a graph: which layers are INT8, and who quantises alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorrt_rtx as trt


@dataclass(frozen=True)
class Walk:
    """Names of layers: convolutions and matrix products with INT8 at both inputs, at one, at none; and quantisers
    whose integers no DequantizeLinear reads, or whose copy no layer that gains from INT8 reads."""

    int8: tuple[str, ...]
    half_done: tuple[str, ...]
    floating: tuple[str, ...]
    orphans: tuple[str, ...]


def walk(graph: Path) -> Walk:
    """Parse a graph and look.

    Raises:
        ValueError: TensorRT-RTX does not take the graph.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise ValueError(f"{graph}: {parser.get_error(0).desc()}")
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    makers = {layer.get_output(slot).name: layer for layer in layers for slot in range(layer.num_outputs)}
    readers: dict[str, list[Any]] = {}
    for layer in layers:
        for slot in range(layer.num_inputs):
            if layer.get_input(slot) is not None:
                readers.setdefault(layer.get_input(slot).name, []).append(layer)
    found: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for layer in layers:
        if layer.type in {trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY}:
            quantised = sum(_is_dequantised(layer.get_input(slot), makers) for slot in range(2))
            found[quantised].append(layer.name)
    alone = [layer.name for layer in layers if layer.type == trt.LayerType.QUANTIZE and not _is_used(layer, readers)]
    return Walk(tuple(found[2]), tuple(found[1]), tuple(found[0]), tuple(alone))


# They move values and compute none.
_MOVES = (trt.LayerType.SHUFFLE, trt.LayerType.IDENTITY, trt.LayerType.CONCATENATION, trt.LayerType.SLICE)
_GAIN = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.ELEMENTWISE)


def _is_dequantised(tensor: Any, makers: dict[str, Any]) -> bool:
    while tensor is not None:
        maker = makers.get(tensor.name)
        if maker is None:
            return False
        if maker.type == trt.LayerType.DEQUANTIZE:
            return True
        if maker.type not in _MOVES:
            return False
        tensor = maker.get_input(0)
    return False


def _is_used(layer: Any, readers: dict[str, list[Any]]) -> bool:
    dequantisers = readers.get(layer.get_output(0).name, [])
    if not dequantisers or any(reader.type != trt.LayerType.DEQUANTIZE for reader in dequantisers):
        return False
    waiting = [reader for one in dequantisers for reader in readers.get(one.get_output(0).name, [])]
    while waiting:
        reader = waiting.pop()
        if reader.type in _GAIN:
            return True
        if reader.type in _MOVES or reader.type == trt.LayerType.POOLING:
            waiting.extend(readers.get(reader.get_output(0).name, []))
    return False
