"""Variants for INT8: float graphs that compute what the original does, each with a calibration table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field, replace

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.config import QdqFormat
from edgetl.graph.weight_rounding import rounded_layers, with_rounded

SubgraphOf = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Cuts a subgraph out of a graph; its tensors keep their names."""


def whole_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


@dataclass(frozen=True)
class PrecisionAssignment:
    """A float graph, the table it is quantised with, and the layers that are excluded from INT8."""

    model: onnx.ModelProto
    table: CalibrationTable
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class QuantizationVariant:
    """A float graph with a table, and their ``description``.

    ``images``: weights of INT8 layers are fitted to these; None where weights stay as they are.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    description: str
    images: Float32Array | None = None
    _assignments: dict[Hashable, PrecisionAssignment] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def plain(cls, model: onnx.ModelProto, table: CalibrationTable) -> QuantizationVariant:
        """The variant of a graph as it is."""
        return cls(model, table, table.method)

    def assign_precision(
        self, target: QdqFormat, more: Collection[str] = (), subgraph: SubgraphOf = whole_graph
    ) -> PrecisionAssignment:
        """The assignment that excludes the layers ``more``, and first layers if the table says so.

        Excluded layers keep their own weights.

        Args:
            subgraph: the part of the graph in which weights are fitted.

        Raises:
            EdgetlError: as `rounded_layers` does.
        """
        excluded = tuple(dict.fromkeys((*self.table.first_in_float(), *more)))
        if self.images is None:
            return PrecisionAssignment(self.model, self.table, excluded)
        # Fitting takes seconds to minutes, and the search comes back to the same assignments.
        key = (target, excluded, self.table.last_in_int8())
        if key not in self._assignments:
            fitted = rounded_layers(subgraph(self.model), self.table, target, self.images, excluded)
            self._assignments[key] = PrecisionAssignment(with_rounded(self.model, fitted), self.table, excluded)
        return replace(self._assignments[key], table=self.table)
