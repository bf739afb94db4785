"""A builder that adds nodes to a graph by calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetl.arrays import AnyArray, Float32Array, Int64Array
from edgetl.graph.model import FreshNames

Operand = str | AnyArray
"""A tensor of the graph by name, or a constant."""


class NodeBuilder:
    """Collects nodes and constants, whose names begin with a prefix and are new to the graph.

    A node has its first output's name. Equal constants are stored once.
    """

    def __init__(self, names: FreshNames, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names = names
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, operator: str, *operands: Operand, **attributes: Any) -> str:
        """Add a node and return the name of its one output."""
        (output,) = self.several(operator, 1, *operands, **attributes)
        return output

    def several(self, operator: str, count: int, *operands: Operand, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of its outputs."""
        number = len(self.nodes)
        outputs = tuple(self.name(f"{operator}{number}") for _ in range(count))
        self._add(operator, operands, outputs, attributes)
        return outputs

    def named(self, output: str, operator: str, *operands: Operand, **attributes: Any) -> None:
        """Add a node whose one output has a given name."""
        self._add(operator, operands, (output,), attributes)

    def name(self, part: str) -> str:
        """A name, with the prefix, that the graph does not have yet."""
        return self._names.fresh(f"{self._prefix}/{part}")

    def inner(self, part: str) -> NodeBuilder:
        """A builder for a graph inside a node, which has constants of its own and reads all tensors outside."""
        return NodeBuilder(self._names, f"{self._prefix}/{part}")

    def _add(
        self, operator: str, operands: tuple[Operand, ...], outputs: tuple[str, ...], attributes: dict[str, Any]
    ) -> None:
        inputs = []
        for value in operands:
            if isinstance(value, str):
                inputs.append(value)
                continue
            key = (value.dtype.str, value.shape, value.tobytes())
            if key not in self._constants:
                name = self._constants[key] = self.name(f"constant{len(self._constants)}")
                self.initializers.append(numpy_helper.from_array(value, name))
            inputs.append(self._constants[key])
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))


def integers(*values: int) -> Int64Array:
    """An int64 vector, as ONNX takes shapes and axes."""
    return np.array(values, np.int64)


def real(value: float) -> Float32Array:
    """A float32 scalar."""
    return np.array(value, np.float32)
