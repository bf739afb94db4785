"""Fake quantisation: layers are computed as INT8 will compute them while they are tuned in float.

The weight and the input of every convolution and linear layer are rounded to the steps of INT8, and the gradient passes
as if they had not been (the straight-through estimator: Bengio et al. 2013, Estimating or propagating gradients through
stochastic neurons; Jacob et al. 2018, Quantization and training of neural networks for integer-arithmetic-only
inference). PyTorch's own operators do both. Layers are met where PyTorch calls them, so nothing is put into a network
and nothing has to be taken out again.

Weights have a scale for each output channel, from what they are at the moment. Batch normalisation behind them
multiplies whole output channels: folded in before or after rounding, it gives the same steps.

The ranges of inputs are calibrated anew after every epoch, in float and on a few of the training maps, as `export` will
calibrate the tuned layers: they follow the layers without a learning rate of their own, and depend on no batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgetl.arrays import Float32Array
from edgetl.errors import EdgetlError
from edgetl.train.branch import ForwardContext, infer

_LAYERS = frozenset({torch.conv1d, torch.conv2d, nn.functional.linear})
_WEIGHT_STEPS = 127  # symmetric: -128 has no counterpart


@dataclass(frozen=True)
class Grid:
    """The values of a quantised tensor: ``scale`` x (q - ``zero_point``), q whole, from ``lowest`` to ``highest``."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    def nearest(self, values: Tensor) -> Tensor:
        """The nearest value of the grid to each value; gradients pass except where values lie beyond its ends."""
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, self.lowest, self.highest)


class GridFinder(Protocol):
    """A calibrator of one layer's input."""

    def add(self, values: Float32Array) -> None:
        """Add values of any shape."""

    def grid(self) -> Grid:
        """The grid for all values that were added."""


@dataclass(frozen=True)
class FakeQuantisation:
    """The precision that layers are tuned for, see `edgetl.train.branch.TuningPrecision`.

    ``maps``: a few of the training maps at the cut, N x C x H x W, to calibrate on. ``watching``: makes the calibrator
    of one input.
    """

    maps: Float32Array
    watching: Callable[[], GridFinder]

    def __call__(self, layers: nn.Module) -> ForwardContext:
        """Calibrate the layers as they are now; return the context in which they compute in INT8's steps.

        Raises:
            EdgetlError: they hold a module whose products PyTorch computes as a whole.
        """
        if any(isinstance(module, nn.MultiheadAttention) for module in layers.modules()):
            raise EdgetlError(
                "the layers above the cut hold nn.MultiheadAttention, whose inner products cannot be tuned for INT8; "
                "leave quantization_aware out, cut above it, or choose another backbone"
            )
        seen: list[GridFinder] = []

        def watch(number: int, given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            if number == len(seen):
                seen.append(self.watching())
            seen[number].add(given.detach().cpu().numpy())
            return given, weight

        infer(layers, self.maps, lambda: _AtLayers(watch))
        grids = [one.grid() for one in seen]

        def rounded(number: int, given: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
            return grids[number].nearest(given), nearest_weight(weight)

        return lambda: _AtLayers(rounded)


def nearest_weight(weight: Tensor) -> Tensor:
    """A layer's weight (outputs first) in symmetric INT8, where 127 steps reach each output channel's largest value."""
    scale = weight.detach().abs().flatten(1).amax(dim=1) / _WEIGHT_STEPS
    scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, 1.0)  # a channel of zeros is exact at any step
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -_WEIGHT_STEPS, _WEIGHT_STEPS)


class _AtLayers(TorchFunctionMode):
    """A context in which ``change`` replaces the input and the weight of every layer.

    It gets each layer's number, in the order in which one forward pass calls them.
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
