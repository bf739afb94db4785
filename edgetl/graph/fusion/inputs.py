"""Joining the inputs of several graphs that mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto, ValueInfoProto

from edgetl.errors import EdgetlError
from edgetl.graph.model import real_inputs

_IMAGES = ""  # no input can be named so
_TYPES = {value: name for name, value in TensorProto.DataType.items()}
_IMAGE_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8})


@dataclass(frozen=True)
class JoinedInputs:
    """The inputs of several graphs in one.

    ``values``: the joined inputs. ``names``: for each graph, the joined name of each of its inputs. ``dims``: for each
    graph, the joined name of each of its dynamic dimensions.
    """

    values: tuple[ValueInfoProto, ...]
    names: Mapping[str, Mapping[str, str]]
    dims: Mapping[str, Mapping[str, str]]

    def adapted(self, value: ValueInfoProto, prefix: str, name: str) -> ValueInfoProto:
        """A copy of a tensor's type and shape with another name, and with the joined names of dynamic dimensions."""
        copy = ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = name
        for dim in copy.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = self.dims[prefix].get(dim.dim_param) or f"{prefix}/{dim.dim_param}"
        return copy


def join_inputs(models: Mapping[str, onnx.ModelProto]) -> JoinedInputs:
    """Join inputs that mean the same: the images (a graph's one input, or its one of rank 4), or those of equal name.

    Raises:
        EdgetlError: two that mean the same differ in type or shape by more than names of dynamic dimensions.
    """
    first: dict[str, tuple[str, ValueInfoProto]] = {}
    names: dict[str, dict[str, str]] = {}
    dims: dict[str, dict[str, str]] = {}
    for prefix, model in models.items():
        names[prefix], dims[prefix] = {}, {}
        inputs = real_inputs(model.graph)
        images = [value for value in inputs if is_image(value)]
        for value in inputs:
            meaning = _IMAGES if images == [value] or len(inputs) == 1 else value.name
            owner, joined = first.setdefault(meaning, (prefix, value))
            if kind(joined) != kind(value):
                raise EdgetlError(
                    f"input {value.name!r} is {kind(joined)} in {owner}, {kind(value)} in {prefix}; models that share "
                    "layers read the same images: export them with one type, size and batch"
                )
            names[prefix][value.name] = joined.name
            for own, common in zip(value.type.tensor_type.shape.dim, joined.type.tensor_type.shape.dim, strict=True):
                dims[prefix][own.dim_param] = common.dim_param
    values = tuple(value for _, value in first.values())
    taken = [value.name for value in values]
    twice = next((name for name in taken if taken.count(name) > 1), None)
    if twice is not None:
        raise EdgetlError(f"two different inputs are called {twice!r}; rename one of them")
    return JoinedInputs(values, names, dims)


def kind(value: ValueInfoProto) -> str:
    """The type and shape of an input in words, dynamic dimensions as ``?``."""
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value"))
    tensor = value.type.tensor_type
    shape = ", ".join(str(dim.dim_value) if dim.HasField("dim_value") else "?" for dim in tensor.shape.dim)
    element = _TYPES.get(tensor.elem_type, "of no known type")
    return f"{element} [{shape}]" if tensor.HasField("shape") else f"{element} of no known shape"


def is_image(value: ValueInfoProto) -> bool:
    """Whether an input has an image's type and rank."""
    kind = value.type.tensor_type
    return kind.elem_type in _IMAGE_TYPES and len(kind.shape.dim) == 4
