"""Heads of detectors: what is trained on the maps of a frozen trunk."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from edgetl.artifacts.detector_bundle import YoloScale

_PRIOR = 0.01
"""How likely an untrained head holds any place to be an object (Lin et al. 2017, RetinaNet): background is the rule."""


class YoloHead(nn.Module):
    """Maps (N x D x H x W each) to raw outputs (N x A * (5 + C) x H x W each), scale by scale.

    Attributes:
        body: what the maps go through first: nothing, or a pyramid.
        outputs: a convolution for each scale.
        activated: for each scale, whether a logistic function follows (`YoloScale.activated`).
    """

    def __init__(self, body: nn.Module, outputs: Sequence[nn.Conv2d], activated: Sequence[bool]) -> None:
        super().__init__()
        self.body, self.outputs = body, nn.ModuleList(outputs)
        self.activated = tuple(activated)

    def forward(self, maps: Sequence[Tensor], first_level_raws: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """``first_level_raws`` are the raw outputs of a first level, read beside the maps."""
        features = self.body(tuple(maps))
        if first_level_raws:
            features = [torch.cat(pair, dim=1) for pair in zip(features, first_level_raws, strict=True)]
        raws = [output(one) for output, one in zip(self.outputs, features, strict=True)]
        return tuple(raw.sigmoid() if on else raw for raw, on in zip(raws, self.activated, strict=True))


class Pyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017) and one 3 x 3 convolution with ReLU at each of its levels."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(channels), width)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)) for _ in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        levels = self.pyramid(OrderedDict((str(number), one) for number, one in enumerate(maps)))
        return tuple(tower(level) for tower, level in zip(self.towers, levels.values(), strict=True))


def pyramid_head(channels: Sequence[int], width: int, scales: Sequence[YoloScale], classes: int, seed: int) -> YoloHead:
    """A head for maps of these channels, the finest first, with random weights."""
    torch.manual_seed(seed)
    outputs = [nn.Conv2d(width, len(scale.anchors) * (5 + classes), 1) for scale in scales]
    for output, scale in zip(outputs, scales, strict=True):
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)  # type: ignore[arg-type]  # a convolution made with a bias
        _rows(output, scale)[1][:, 4:] = -math.log(1.0 / _PRIOR - 1.0)
    return YoloHead(Pyramid(channels, width), outputs, [False] * len(scales))


def pretrained_head(
    convolutions: Sequence[nn.Conv2d],
    known: Sequence[str],
    before: Sequence[YoloScale],
    scales: Sequence[YoloScale],
    classes: Sequence[str],
) -> YoloHead:
    """The pretrained last convolutions for other classes.

    Boxes and objectness are kept; a class that the network knows keeps its weights, another one starts without any and
    as likely as all others. Where ``scales`` have other anchors than ``before``, biases move so that boxes do not (but
    where a scale is ``activated``: no bias makes up for anchors there, so boxes change with them until training).
    """
    outputs = [
        _for_classes(ending, known, old, new, classes)
        for ending, old, new in zip(convolutions, before, scales, strict=True)
    ]
    return YoloHead(nn.Identity(), outputs, [scale.activated for scale in scales])


def _for_classes(
    ending: nn.Conv2d, known: Sequence[str], before: YoloScale, scale: YoloScale, classes: Sequence[str]
) -> nn.Conv2d:
    anchors = len(scale.anchors)
    output = _convolution_like(ending, ending.in_channels, anchors * (5 + len(classes)))
    (weight, bias), (old_weight, old_bias) = _rows(output, scale), _rows(ending, before)
    weight[:, :5], bias[:, :5] = old_weight[:, :5], old_bias[:, :5]
    weight[:, 5:] = 0.0
    bias[:, 5:] = 0.0 if scale.softmax else -math.log(max(len(classes) - 1, 1))
    for position, label in enumerate(classes):
        if label in known:
            row = 5 + list(known).index(label)
            weight[:, 5 + position], bias[:, 5 + position] = old_weight[:, row], old_bias[:, row]
    ratio = torch.tensor(before.anchors) / torch.tensor(scale.anchors)
    if not scale.activated:
        bias[:, 2:4] += ratio.log()
    return output


def second_level_head(head: YoloHead, channels: Sequence[int]) -> YoloHead:
    """A copy that takes a first level's raw outputs of so many channels too, and does not heed them yet."""
    widened = copy.deepcopy(head)
    for number, (output, more) in enumerate(zip(head.outputs, channels, strict=True)):
        assert isinstance(output, nn.Conv2d)
        wider = _convolution_like(output, output.in_channels + more, output.out_channels)
        with torch.no_grad():
            wider.weight.zero_()
            wider.weight[:, : output.in_channels] = output.weight
            wider.bias.copy_(output.bias)  # type: ignore[union-attr,arg-type]
        widened.outputs[number] = wider
    return widened


def _convolution_like(ending: nn.Conv2d, channels: int, filters: int) -> nn.Conv2d:
    sizes: tuple[int, ...] = ending.kernel_size
    return nn.Conv2d(channels, filters, sizes, ending.stride, ending.padding, ending.dilation)  # type: ignore[arg-type]


def _rows(output: nn.Conv2d, scale: YoloScale) -> tuple[Tensor, Tensor]:
    """Weight (A x (5 + C) x D x ...) and bias (A x (5 + C)), to be written to."""
    anchors = len(scale.anchors)
    assert output.bias is not None
    weight, bias = output.weight.detach(), output.bias.detach()
    return weight.view(anchors, -1, *weight.shape[1:]), bias.view(anchors, -1)
