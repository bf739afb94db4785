"""Detection heads: the layers that are trained on the maps of a frozen trunk."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from edgetl.artifacts.detector_bundle import YoloScale

# The probability of an object that an untrained head gives to every place (Lin et al. 2017, RetinaNet). At one half
# the many places of background would drown the first steps of training.
_PRIOR = 0.01


class YoloHead(nn.Module):
    """Maps (N x D x H x W each) to raw outputs (N x A * (5 + C) x H x W each), scale by scale.

    Attributes:
        body: the layers that the maps pass first: none, or a pyramid.
        outputs: a convolution for each scale.
        activated: for each scale, whether a logistic function follows (`YoloScale.activated`).
    """

    def __init__(self, body: nn.Module, outputs: Sequence[nn.Conv2d], activated: Sequence[bool]) -> None:
        super().__init__()
        self.body, self.outputs = body, nn.ModuleList(outputs)
        self.activated = tuple(activated)

    def forward(self, maps: Sequence[Tensor], first_level_raws: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        """The raw outputs; a second level reads ``first_level_raws``, those of the first one, beside the maps."""
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
    """A head with random weights for maps of these channels, the finest first."""
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
    """The head of the pretrained last convolutions, made for other classes.

    Boxes and objectness are kept. A class among the ``known`` ones keeps its weights, another starts with zeros and as
    likely as all others. Where ``scales`` have other anchors than ``before``, biases make up for them so that boxes
    stay; not where a scale is ``activated``, as no bias can: its boxes change until they are trained.
    """
    outputs = []
    for convolution, old, new in zip(convolutions, before, scales, strict=True):
        output = _convolution_like(convolution, convolution.in_channels, len(new.anchors) * (5 + len(classes)))
        (weight, bias), (old_weight, old_bias) = _rows(output, new), _rows(convolution, old)
        weight[:, :5], bias[:, :5] = old_weight[:, :5], old_bias[:, :5]
        weight[:, 5:] = 0.0
        # A softmax of equal logits is uniform; a logistic function is 1 / C at -log(C - 1).
        bias[:, 5:] = 0.0 if new.softmax else -math.log(max(len(classes) - 1, 1))
        for position, label in enumerate(classes):
            if label in known:
                row = 5 + list(known).index(label)
                weight[:, 5 + position], bias[:, 5 + position] = old_weight[:, row], old_bias[:, row]
        if not new.activated:
            bias[:, 2:4] += (torch.tensor(old.anchors) / torch.tensor(new.anchors)).log()
        outputs.append(output)
    return YoloHead(nn.Identity(), outputs, [scale.activated for scale in scales])


def second_level_head(head: YoloHead, channels: Sequence[int]) -> YoloHead:
    """A copy of a head that also takes a first level's raw outputs of so many channels, with weights of zero."""
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


def _convolution_like(like: nn.Conv2d, channels: int, filters: int) -> nn.Conv2d:
    sizes: tuple[int, ...] = like.kernel_size
    return nn.Conv2d(channels, filters, sizes, like.stride, like.padding, like.dilation)  # type: ignore[arg-type]


def _rows(output: nn.Conv2d, scale: YoloScale) -> tuple[Tensor, Tensor]:
    """Views of weight (A x (5 + C) x D x ...) and bias (A x (5 + C)), to be written to."""
    anchors = len(scale.anchors)
    assert output.bias is not None
    weight, bias = output.weight.detach(), output.bias.detach()
    return weight.view(anchors, -1, *weight.shape[1:]), bias.view(anchors, -1)
