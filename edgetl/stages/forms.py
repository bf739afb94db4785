"""What INT8 is made of: float graphs that compute what the original does, each with ranges for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field, replace

import onnx

from edgetl.artifacts.calibration import CalibrationTable
from edgetl.graph.fit import fitted_layers, with_fitted
from edgetl.graph.observe import Images
from edgetl.graph.placement import Target

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

    ``images``: what weights are fitted to, for whatever layers are INT8; None where they stay as they are.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    what: str
    images: Images | None = None
    _mixes: dict[Hashable, Mix] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def plain(cls, model: onnx.ModelProto, table: CalibrationTable) -> Form:
        """A graph as it is."""
        return cls(model, table, table.method)

    def mix(self, target: Target, more: Collection[str] = (), searched: Part = as_it_is) -> Mix:
        """With some layers in float: these, and first and last ones if the table says so; they have their own weights.

        Args:
            searched: the part of the graph in which weights are fitted.

        Raises:
            EdgetlError: as `fitted_layers` does.
        """
        returned = tuple(dict.fromkeys((*self.table.first_in_float(), *more)))
        if self.images is None:
            return Mix(self.model, self.table, returned)
        key = (target, returned, self.table.last_in_int8())
        if key not in self._mixes:
            fitted = fitted_layers(searched(self.model), self.table, target, self.images, returned)
            self._mixes[key] = Mix(with_fitted(self.model, fitted), self.table, returned)
        return replace(self._mixes[key], table=self.table)
