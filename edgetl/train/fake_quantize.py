"""Layers as INT8 will compute them, while they are tuned in float.

The weight and the input of every convolution and linear layer are rounded to the steps of INT8, and the gradient passes
as if they had not been (the straight-through estimator: Bengio et al. 2013, Estimating or propagating gradients through
stochastic neurons; Jacob et al. 2018, Quantization and training of neural networks for integer-arithmetic-only
inference). PyTorch's own operators do both. Layers are met where PyTorch calls them, so nothing is put into a network
and nothing has to be taken out again.

Weights have a scale for each output channel, from what they are at the moment. Batch normalisation behind them
multiplies whole output channels: folded in before or after rounding, it gives the same steps.

The ranges of inputs are found anew after every epoch, in float and on a few of the training maps, as `export` will
find those of the tuned layers: they follow the layers without a rate of their own, and depend on no batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgetl.arrays import Float32Array
from edgetl.errors import EdgetlError
from edgetl.train.branch import ForwardContext, infer

_LAYERS = frozenset({torch.conv1d, torch.conv2d, nn.functional.linear})
_WEIGHT_STEPS = 127


@dataclass(frozen=True)
class Grid:
    """The values of a quantised tensor: ``scale`` x (q - ``zero_point``), q whole, from ``lowest`` to ``highest``."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest value of the grid to each; gradients pass but where values lie beyond its ends."""
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, self.lowest, self.highest)


class GridFinder(Protocol):
    """Finds the grid of a layer's input from what it is shown of it."""

    def add(self, values: Float32Array) -> None:
        """See some values, of any shape."""

    def grid(self) -> Grid:
        """The grid for all that was seen."""


@dataclass(frozen=True)
class FakeQuantisation:
    """The precision that layers are tuned for, see `edgetl.train.branch.TuningPrecision`.

    ``maps``: a few of the training maps at the cut, N x C x H x W, that ranges are found on. ``watching``: makes what
    finds the grid of one input.
    """

    maps: Float32Array
    watching: Callable[[], GridFinder]

    def __call__(self, layers: nn.Module) -> ForwardContext:
        """Find the grids that fit the layers as they are now.

        Raises:
            EdgetlError: they hold a module whose products PyTorch computes as a whole.
        """
        if any(isinstance(module, nn.MultiheadAttention) for module in layers.modules()):
            raise EdgetlError(
                "the layers above the cut hold nn.MultiheadAttention, whose inner products cannot be tuned for INT8; "
                "leave quantization_aware out, cut above it, or choose another backbone"
            )
        grids = self._grids(layers)
        return lambda: _AtLayers(partial(_rounded, grids))

    def _grids(self, layers: nn.Module) -> list[Grid]:
        seen: list[GridFinder] = []

        def watch(number: int, given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            if number == len(seen):
                seen.append(self.watching())
            seen[number].add(given.detach().cpu().numpy())
            return given, weight

        infer(layers, self.maps, lambda: _AtLayers(watch))
        return [one.grid() for one in seen]


def nearest_weight(weight: Tensor) -> Tensor:
    """A layer's weight (outputs first) in symmetric INT8: 127 steps of each output channel reach its largest value."""
    scale = weight.detach().abs().flatten(1).amax(dim=1) / _WEIGHT_STEPS
    scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, 1.0)  # a channel of zeros is exact at any step
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -_WEIGHT_STEPS, _WEIGHT_STEPS)


def _rounded(grids: Sequence[Grid], number: int, given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return grids[number].nearest(given), nearest_weight(weight)


class _AtLayers(TorchFunctionMode):
    """While it is entered, every layer gets what ``change`` makes of its input and weight.

    Layers are known by their number, in the order in which one forward pass calls them.
    """

    def __init__(self, change: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._change = change
        self._numbers = count()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _LAYERS:
            given, weight, *others = args
            args = (*self._change(next(self._numbers), given, weight), *others)
        return func(*args, **(kwargs or {}))
