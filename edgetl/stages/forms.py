"""What INT8 is made of: float graphs that compute what the original does, each with ranges for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import onnx

from edgetl.artifacts.calibration import CalibrationTable
from edgetl.graph.fit import Fitted, with_fitted
from edgetl.graph.model import Wiring
from edgetl.graph.placement import Target, place

Part = Callable[[onnx.ModelProto], onnx.ModelProto]
"""From a graph to one that lies within it, under the names that tensors have there."""


def as_it_is(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


@dataclass(frozen=True)
class Mix:
    """A float graph, the table it is quantised with, and the layers that are not INT8 all the same."""

    model: onnx.ModelProto
    table: CalibrationTable
    returned: tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """A float graph and a table for it, and ``what`` they are.

    ``fitted``: weights and biases for INT8 in one spelling, by the tensor that a layer makes.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    what: str
    fitted: Mapping[str, Fitted] = field(default_factory=dict)

    @classmethod
    def plain(cls, model: onnx.ModelProto, table: CalibrationTable) -> Form:
        """A graph as it is."""
        return cls(model, table, table.method)

    def mix(self, target: Target, more: Collection[str] = (), searched: Part = as_it_is) -> Mix:
        """With some layers in float: these, and first and last ones if the table says so; they have their own weights.

        Args:
            searched: the part of the graph whose word on its layers counts before what the whole says of them.
        """
        returned = tuple(dict.fromkeys((*self.table.first_in_float(), *more)))
        last = {note.layer for note in self.table.last if not note.int8}
        floats = _in_float(self.model, target, returned, searched) | last
        model = with_fitted(self.model, self.fitted, floats) if self.fitted else self.model
        return Mix(model, self.table, returned)


def _in_float(model: onnx.ModelProto, target: Target, returned: Collection[str], searched: Part) -> frozenset[str]:
    """Layers that could be INT8 and are not."""
    found: frozenset[str] = frozenset()
    for graph in (model.graph, searched(model).graph):
        wiring = Wiring(graph)
        every, quantised = (
            {wiring.nodes[position].output[0] for position in placement.layers}
            for placement in (place(wiring, "tensorrt"), place(wiring, target, returned))
        )
        found = (found - every) | (every - quantised)
    return found
