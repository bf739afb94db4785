"""Value numbering: tensors of several graphs get the same number where their values are certain to be equal."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from edgetl.graph.model import subgraphs

_STANDARD = frozenset({"", "ai.onnx"})
# Whoever writes an operator of another domain may keep state in it.
_PURE = _STANDARD | {"ai.onnx.ml", "com.microsoft"}
_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout", "Sampling")
SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Numbered:
    """The numbers of one graph.

    ``tensors``: of every tensor by name: inputs, initializers and outputs of nodes, in this order. ``nodes``: of every
    node by position; None for those that need not run: Constant, and Identity, whose output has its input's number.
    ``constants``: the value of each constant number. ``unique``: positions of the nodes that are never equal to
    another: random ones, those with subgraphs, and those of unknown domains.
    """

    tensors: dict[str, int]
    nodes: tuple[int | None, ...]
    constants: dict[int, TensorProto]
    unique: frozenset[int]


class Numbering:
    """Numbers graphs one after another; equal numbers mean equal values.

    A node's number stands for its operator, its attributes (in any order, without those that equal the schema's
    default), which of its outputs are used, and the numbers of its inputs. A constant's number stands for type, shape
    and bytes. All graphs must use the same version of each operator domain.

    Args:
        scales: False ignores the scales and zero points of quantised activations.
    """

    def __init__(self, scales: bool = True) -> None:
        self._scales = scales
        self._numbers: dict[Hashable, int] = {}

    def input(self, name: str) -> int:
        """The number of a graph input, by the joined name of inputs that mean the same."""
        return self._intern(("input", name))

    def number(self, model: onnx.ModelProto, inputs: Mapping[str, int]) -> Numbered:
        """Number a graph's tensors and nodes.

        Args:
            model: a valid model: its nodes are in topological order.
            inputs: the numbers of its inputs, without those that have an initializer.
        """
        versions = {_domain(item.domain): item.version for item in model.opset_import}
        found = Numbered(dict(inputs), (), {}, frozenset())
        for tensor in model.graph.initializer:
            self._constant(tensor.name, tensor, found)
        nodes = [self._node(node, versions, found) for node in model.graph.node]
        unique = frozenset(position for position, (_, alone) in enumerate(nodes) if alone)
        return Numbered(found.tensors, tuple(number for number, _ in nodes), found.constants, unique)

    def _intern(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _constant(self, name: str, tensor: TensorProto, found: Numbered) -> None:
        number = self._intern(("constant", *content(tensor)))
        found.tensors[name] = number
        found.constants.setdefault(number, tensor)

    def _node(self, node: onnx.NodeProto, versions: Mapping[str, int], found: Numbered) -> tuple[int | None, bool]:
        """The number of a node, and whether it is unique."""
        value = constant_value(node)
        if value is not None:
            self._constant(node.output[0], value, found)
            return None, False
        if node.op_type == "Identity" and node.domain in _STANDARD:
            found.tensors[node.output[0]] = found.tensors[node.input[0]]
            return None, False
        alone = not _repeatable(node, versions, found)
        if alone:  # the table grows with every entry, so its length is a key that nothing else has
            number = self._intern(("unique", len(self._numbers)))
        else:
            domain = _domain(node.domain)
            inputs: list[Hashable] = [found.tensors[name] if name else None for name in node.input]
            while inputs and inputs[-1] is None:  # optional inputs at the end may be left out or empty
                inputs.pop()
            if not self._scales and scaled_activation(node, found):
                settings = [found.constants[found.tensors[name]] for name in node.input[1:] if name]
                inputs[1:] = [("any", tensor.data_type, tuple(tensor.dims)) for tensor in settings]
            used = tuple(bool(name) for name in node.output)
            attributes = attribute_key(node, versions.get(domain, 0))
            number = self._intern((domain, node.op_type, attributes, tuple(inputs), used))
        for slot, name in enumerate(node.output):
            if name:
                found.tensors[name] = self._intern((number, slot))
        return number, alone


def number_all(
    models: Mapping[str, onnx.ModelProto], inputs: Mapping[str, Mapping[str, str]], scales: bool = True
) -> dict[str, Numbered]:
    """Number several graphs with one table.

    Args:
        models: the graphs, all of one opset.
        inputs: for each, the joined name of each of its inputs.
        scales: as for `Numbering`.
    """
    numbering = Numbering(scales)
    return {
        prefix: numbering.number(model, {name: numbering.input(new) for name, new in inputs[prefix].items()})
        for prefix, model in models.items()
    }


def scaled_activation(node: onnx.NodeProto, found: Numbered) -> bool:
    """Whether a node quantises or dequantises a tensor that varies, by a constant scale."""
    if node.op_type not in SCALED:
        return False
    data, *parameters = (found.tensors[name] for name in node.input if name)
    return data not in found.constants and found.constants.keys() >= set(parameters)


def quantises(node: onnx.NodeProto) -> bool:
    """Whether a node quantises, dequantises, or computes with quantised integers."""
    return node.op_type.startswith("Q") or "quantize" in node.op_type.lower() or node.op_type.endswith("Integer")


def content(tensor: TensorProto) -> tuple[int, tuple[int, ...], str]:
    """The type, the shape and a digest of the values of a tensor, equal for every way to store them."""
    if tensor.string_data:
        parts = [len(part).to_bytes(8, "little") + part for part in tensor.string_data]
        return tensor.data_type, tuple(tensor.dims), hashlib.sha256(b"".join(parts)).hexdigest()
    if not tensor.HasField("raw_data"):
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return tensor.data_type, tuple(tensor.dims), hashlib.sha256(tensor.raw_data).hexdigest()


def constant_value(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a Constant node; None for other nodes, and for a sparse value."""
    if node.op_type != "Constant" or node.domain not in _STANDARD or len(node.attribute) != 1:
        return None
    if node.attribute[0].name == "sparse_value":
        return None
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return value
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    kind = kinds.get(node.attribute[0].name, np.object_)
    return numpy_helper.from_array(np.array(value, kind))


def attribute_key(node: onnx.NodeProto, version: int) -> tuple[Hashable, ...]:
    """A node's attributes without those that equal the default of its schema in this version of the domain."""
    defaults = _defaults(node.op_type, version, "" if node.domain in _STANDARD else node.domain)
    return tuple(key for key in sorted(map(_attribute, node.attribute)) if key not in defaults)


@lru_cache(maxsize=4096)
def _defaults(op: str, version: int, domain: str) -> frozenset[Hashable]:
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return frozenset()
    return frozenset(_attribute(item.default_value) for item in schema.attributes.values() if item.default_value.name)


def _attribute(attribute: AttributeProto) -> tuple[str, bytes, tuple[Hashable, ...]]:
    tensors = tuple(map(content, (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))))
    bare = AttributeProto()
    bare.CopyFrom(attribute)
    for field in ("doc_string", "t", "tensors"):
        bare.ClearField(field)
    return attribute.name, bare.SerializeToString(deterministic=True), tensors


def _repeatable(node: onnx.NodeProto, versions: Mapping[str, int], found: Numbered) -> bool:
    """Whether two such nodes with equal inputs are certain to have equal outputs, because they are not random."""
    if node.domain not in _PURE or any(subgraphs(node)):
        return False
    if node.op_type != "Dropout" or node.domain not in _STANDARD:
        return not any(word in node.op_type for word in _RANDOM)
    # Up to opset 6 Dropout has the attribute is_test, from 12 on the input training_mode, and neither between.
    if versions.get("", 0) < 7:
        return any(item.name == "is_test" and item.i for item in node.attribute)
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = found.constants.get(found.tensors[node.input[2]])
    return training is not None and not numpy_helper.to_array(training).any()


def _domain(domain: str) -> str:
    return "" if domain in _STANDARD else domain
