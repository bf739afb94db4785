"""Darknet's layers as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.train.darknet import sections

# Inside the root, as OpenCV has it. Darknets have 1e-6 outside it or 1e-5 inside, by age and device.
_EPSILON = 1e-6


class Convolutional(nn.Module):
    """Convolution, batch normalisation and activation, as far as the section has them."""

    def __init__(self, layer: sections.ConvolutionalSpec) -> None:
        super().__init__()
        filters = layer.shape.channels
        self.conv = nn.Conv2d(
            layer.channels,
            filters,
            layer.size,
            stride=layer.strides,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=not layer.normalised,
        )
        self.norm = nn.BatchNorm2d(filters, eps=_EPSILON) if layer.normalised else nn.Identity()
        self.activation = _ACTIVATIONS[layer.activation]()

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.activation(self.norm(self.conv(maps)))
        return result


class MaxPool(nn.Module):
    """A maximum over windows, of which Darknet pads half in front and the rest behind, with the lowest value."""

    def __init__(self, layer: sections.MaxPoolSpec) -> None:
        super().__init__()
        # Torch and most runtimes pad both sides alike. The odd one behind is what rounding up adds where the stride
        # is 2; elsewhere the edge is repeated: it is in the window already, so the maximum stays what it is.
        odd = layer.padding % 2 == 1
        rounds_up = odd and layer.strides == (2, 2)
        self.repeats = odd and not rounds_up
        self.pool = nn.MaxPool2d(layer.size, layer.strides, layer.padding // 2, ceil_mode=rounds_up)

    def forward(self, maps: Tensor) -> Tensor:
        if self.repeats:
            maps = torch.cat([maps, maps[:, :, -1:]], dim=2)
            maps = torch.cat([maps, maps[:, :, :, -1:]], dim=3)
        result: Tensor = self.pool(maps)
        return result


class Route(nn.Module):
    """The maps joined along channels, whole or one part of each."""

    def __init__(self, layer: sections.RouteSpec) -> None:
        super().__init__()
        widths = [channels // layer.groups for channels in layer.channels]
        self.parts = [slice(width * layer.group, width * (layer.group + 1)) for width in widths]
        self.whole = layer.groups == 1

    def forward(self, *maps: Tensor) -> Tensor:
        parts = maps if self.whole else [one[:, part] for one, part in zip(maps, self.parts, strict=True)]
        return torch.cat(list(parts), dim=1) if len(parts) > 1 else parts[0]


class Shortcut(nn.Module):
    """The first maps plus, on the channels that both have, each of the others."""

    def __init__(self, layer: sections.ShortcutSpec) -> None:
        super().__init__()
        self.channels = layer.channels
        self.activation = _ACTIVATIONS[layer.activation]()

    def forward(self, maps: Tensor, *others: Tensor) -> Tensor:
        own, *theirs = self.channels
        for other, width in zip(others, theirs, strict=True):
            if width < own:
                maps = torch.cat([maps[:, :width] + other, maps[:, width:]], dim=1)
            else:
                maps = maps + (other[:, :own] if width > own else other)
        result: Tensor = self.activation(maps)
        return result


class Multiply(nn.Module):
    def __init__(self, layer: sections.ProductSpec) -> None:
        super().__init__()
        self.activation = _ACTIVATIONS[layer.activation]()

    def forward(self, maps: Tensor, scale: Tensor) -> Tensor:
        result: Tensor = self.activation(maps * scale)
        return result


class Upsample(nn.Module):
    def __init__(self, layer: sections.UpsampleSpec) -> None:
        super().__init__()
        self.repeat = nn.Upsample(scale_factor=layer.stride, mode="nearest")
        self.factor = layer.factor

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.repeat(maps)
        return result if self.factor == 1 else result * self.factor


class Reorg(nn.Module):
    """Darknet's [reorg]: not space to depth, but the same of the values seen as C/s^2 x sH x sW maps.

    ``reorg_cpu`` is called with the sizes of the input where it expects those of the output; YOLOv2's weights were
    trained with that.
    """

    def __init__(self, layer: sections.ReorgSpec) -> None:
        super().__init__()
        self.stride = layer.stride

    def forward(self, maps: Tensor) -> Tensor:
        # Whole numbers in a traced graph too: it is exported for one size.
        stride, (channels, height, width) = self.stride, map(int, maps.shape[1:])
        blocks = maps.reshape(-1, channels // stride**2, height, stride, width, stride).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(-1, channels * stride**2, height // stride, width // stride)


class Softmax(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.flatten(1).softmax(dim=1)


class GlobalAveragePool(nn.Module):
    """Maps averaged over positions: N x C x H x W to N x C."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = self.average(maps)
        return result.flatten(1)


def module_of(layer: sections.LayerSpec) -> nn.Module:
    """The module that computes a layer, for evaluation alone: [dropout], [cost], [yolo] and [region] do nothing."""
    return _MODULES[type(layer)](layer)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1),  # Darknet's slope; PyTorch's default is 0.01
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "logistic": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}

_MODULES: dict[type[sections.LayerSpec], Callable[[Any], nn.Module]] = {
    sections.ConvolutionalSpec: Convolutional,
    sections.MaxPoolSpec: MaxPool,
    sections.AveragePoolSpec: lambda layer: nn.AvgPool2d(
        layer.size, layer.strides, layer.padding // 2, count_include_pad=False
    ),
    sections.GlobalAveragePoolSpec: lambda _: nn.AdaptiveAvgPool2d(1),
    sections.RouteSpec: Route,
    sections.ShortcutSpec: Shortcut,
    sections.ProductSpec: Multiply,
    sections.UpsampleSpec: Upsample,
    sections.ReorgSpec: Reorg,
    sections.SoftmaxSpec: lambda _: Softmax(),
    sections.IdentitySpec: lambda _: nn.Identity(),
    sections.DetectionSpec: lambda _: nn.Identity(),
}
