"""Weights apart from their graph, because ONNX passes and stores a model of at most 2 GiB as one message."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edgetl.artifacts.files import whole_file

# Larger constants than this are weights: no shape, axes or bounds that inference would want to know.
_LARGEST_SHAPE = 1024
# External data that begins at the start of a page can be mapped into memory.
_PAGE = 4096


def without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[TensorProto]]:
    """The model with its large initializers turned into inputs, and these initializers.

    Inference and conversion, which need only types and shapes, work on it whatever the size of the weights.
    """
    weights = [tensor for tensor in model.graph.initializer if math.prod(tensor.dims) > _LARGEST_SHAPE]
    heavy = {tensor.name for tensor in weights}
    light = _without_initializers(model)
    add_initializers(light, (tensor for tensor in model.graph.initializer if tensor.name not in heavy))
    for values in (light.graph.input, light.graph.value_info):
        kept = [value for value in values if value.name not in heavy]
        del values[:]
        values.extend(kept)
    light.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights)
    return light, weights


def with_weights(light: onnx.ModelProto, weights: Sequence[TensorProto]) -> onnx.ModelProto:
    """The model with the weights that ``without_weights`` took out, as initializers again."""
    heavy = {tensor.name for tensor in weights}
    inputs = [value for value in light.graph.input if value.name not in heavy]
    del light.graph.input[:]
    light.graph.input.extend(inputs)
    add_initializers(light, weights)
    return light


def add_initializers(model: onnx.ModelProto, tensors: Iterable[TensorProto]) -> None:
    """Copy tensors into a model, also those over 2 GiB, on which ``append`` and ``extend`` fail."""
    for tensor in tensors:
        model.graph.initializer.add().CopyFrom(tensor)


def envelope(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model's fields (opsets, metadata, producer) without its graph."""
    fields = {field.name: value for field, value in model.ListFields() if field.name != "graph"}
    return onnx.ModelProto(**fields)


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    light = envelope(model)
    fields = {field.name: value for field, value in model.graph.ListFields() if field.name != "initializer"}
    light.graph.CopyFrom(onnx.GraphProto(**fields))
    return light


def _storable(model: onnx.ModelProto) -> list[TensorProto]:
    return [t for t in model.graph.initializer if t.HasField("raw_data") and math.prod(t.dims) > _LARGEST_SHAPE]


def weights_digest(model: onnx.ModelProto) -> str:
    """The SHA-256 of the weights that `with_external_data` would write, in hexadecimal digits."""
    digest = hashlib.sha256()
    for tensor in _storable(model):
        digest.update(tensor.raw_data)
    return digest.hexdigest()


def with_external_data(model: onnx.ModelProto, data: Path) -> onnx.ModelProto:
    """Write the weights to a file and return the model that refers to it."""
    light, heavy = _without_initializers(model), {tensor.name for tensor in _storable(model)}
    with whole_file(data) as partial, partial.open("wb") as stream:
        for tensor in model.graph.initializer:
            if tensor.name not in heavy:
                light.graph.initializer.append(tensor)
                continue
            stream.write(bytes(-stream.tell() % _PAGE))
            offset, length = stream.tell(), stream.write(tensor.raw_data)
            stored = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            stored.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", offset), ("length", length)):
                stored.external_data.add(key=key, value=str(value))
    return light
