"""What INT8 is made of: float graphs that compute what the original does, each with ranges for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field, replace

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.config import QdqFormat
from edgetl.graph.weight_rounding import rounded_layers, with_rounded

SubgraphOf = Callable[[onnx.ModelProto], onnx.ModelProto]
"""From a graph to one that lies within it, under the names that tensors have there."""


def whole_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


@dataclass(frozen=True)
class PrecisionAssignment:
    """A float graph, the table it is quantised with, and the layers that are not INT8 all the same."""

    model: onnx.ModelProto
    table: CalibrationTable
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class QuantizationVariant:
    """A float graph and a table for it, and ``description`` they are.

    ``images``: what weights are fitted to, for whatever layers are INT8; None where they stay as they are.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    description: str
    images: Float32Array | None = None
    _assignments: dict[Hashable, PrecisionAssignment] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def plain(cls, model: onnx.ModelProto, table: CalibrationTable) -> QuantizationVariant:
        """A graph as it is."""
        return cls(model, table, table.method)

    def assign_precision(
        self, target: QdqFormat, more: Collection[str] = (), subgraph: SubgraphOf = whole_graph
    ) -> PrecisionAssignment:
        """With some layers in float: these, and first and last ones if the table says so; they have their own weights.

        Args:
            subgraph: the part of the graph in which weights are fitted.

        Raises:
            EdgetlError: as `rounded_layers` does.
        """
        returned = tuple(dict.fromkeys((*self.table.first_in_float(), *more)))
        if self.images is None:
            return PrecisionAssignment(self.model, self.table, returned)
        key = (target, returned, self.table.last_in_int8())
        if key not in self._assignments:
            fitted = rounded_layers(subgraph(self.model), self.table, target, self.images, returned)
            self._assignments[key] = PrecisionAssignment(with_rounded(self.model, fitted), self.table, returned)
        return replace(self._assignments[key], table=self.table)
