"""The loss of YOLO heads, as published.

``yolo``: Redmon & Farhadi 2018, YOLOv3, section 2: the anchor that fits an object best is responsible for it, in the
cell of its centre; predictions that overlap any object by more than half are not held to be background; objectness and
classes are logistic, classes independent of each other. Its gradients are those of Darknet's ``yolo_layer.c``: cross
entropy for the place in the cell, squared error for the logarithm of the sides, both weighted by two minus the
object's share of the image, summed and divided by the number of images.

``ciou``: the same with the complete IoU of the box in place of the place and the sides (Zheng et al. 2020,
Distance-IoU loss), weighted 0.07 as in YOLOv4's cfg (Bochkovskiy et al. 2020) times the number of values it replaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, complete_box_iou_loss

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.train.detect.decode_boxes import InputSize, corners, values
from edgetl.train.detect.objects import Objects

BoxLoss = Literal["yolo", "ciou"]

_NEAR = 0.5
_CIOU_WEIGHT = 0.07
_TINY = 1e-6  # keeps logarithms and divisions finite where a box has no area or a probability is 0 or 1


@dataclass(frozen=True)
class YoloLoss:
    """The loss of one head's raw outputs on a batch, as a function: a call gives one number."""

    scales: tuple[YoloScale, ...]
    frame: InputSize
    box: BoxLoss = "yolo"

    def __call__(self, raws: Sequence[Tensor], objects: Objects) -> Tensor:
        """``raws``: N x A * (5 + C) x H x W for each scale."""
        responsible = _responsible(self.scales, objects.boxes)
        total: Tensor = raws[0].new_zeros(())
        for number, (raw, scale) in enumerate(zip(raws, self.scales, strict=True)):
            own = responsible[:, 0] == number
            total = total + self._of_scale(values(raw, scale), scale, objects, own, responsible[:, 1])
        mean: Tensor = total / objects.images
        return mean

    def _of_scale(self, raw: Tensor, scale: YoloScale, objects: Objects, own: Tensor, anchors: Tensor) -> Tensor:
        """The summed loss of a scale's `values`; ``own`` tells (M truth values) for which objects it is responsible."""
        boxes, truth = corners(raw, scale, self.frame), objects.boxes[own]
        size = truth.new_tensor([raw.shape[3], raw.shape[2]])
        centre = (truth[:, :2] + truth[:, 2:]) / 2 * size / truth.new_tensor([self.frame.width, self.frame.height])
        # A centre on the far edge of the image belongs to the last cell.
        corner = centre.floor().clamp(min=0.0).minimum(size - 1.0)
        columns, rows = corner.long().unbind(dim=1)
        place = (objects.image[own], anchors[own], rows, columns)
        counts = ~_near(boxes.detach(), objects.near)
        objectness = torch.zeros_like(raw[..., 4])
        objectness[place] = 1.0
        counts[place] = True
        error: Tensor = _cross_entropy(raw[..., 4], objectness, scale)[counts].sum()
        if not own.any():
            return error
        here, kinds = raw[place], objects.classes[own]
        if scale.softmax:
            error = error + functional.cross_entropy(here[:, 5:], kinds, reduction="sum")
        else:
            one_hot = functional.one_hot(kinds, here.shape[1] - 5).to(here)
            error = error + _cross_entropy(here[:, 5:], one_hot, scale).sum()
        if self.box == "ciou":
            ciou: Tensor = complete_box_iou_loss(boxes[place], truth, reduction="sum", eps=_TINY)
            return error + 4 * _CIOU_WEIGHT * ciou
        return error + self._box_error(here[:, :4], truth, centre - corner, anchors[own], scale)

    def _box_error(self, here: Tensor, truth: Tensor, inside: Tensor, anchors: Tensor, scale: YoloScale) -> Tensor:
        """The error of place and sides (M x 4) against boxes (M x 4) with centres ``inside`` their cells (M x 2)."""
        sides = (truth[:, 2:] - truth[:, :2]).clamp(min=_TINY)
        small = 2.0 - sides.prod(dim=1, keepdim=True) / (self.frame.width * self.frame.height)
        inside = (inside + (scale.scale_xy - 1.0) / 2.0) / scale.scale_xy
        ratio = sides / truth.new_tensor(scale.anchors)[anchors]
        aim = ratio.sqrt() / 2.0 if scale.activated else ratio.log()  # the inverse of `corners`
        place = _cross_entropy(here[:, :2], inside.clamp(0.0, 1.0), scale)
        return (small * (place + 0.5 * (here[:, 2:] - aim) ** 2)).sum()


def _responsible(scales: Sequence[YoloScale], boxes: Tensor) -> Tensor:
    """The scale and the anchor (M x 2) whose sides fit each object best, whatever its place."""
    every = [(number, anchor) for number, scale in enumerate(scales) for anchor in range(len(scale.anchors))]
    sides = boxes.new_tensor([scales[number].anchors[anchor] for number, anchor in every])
    corner = torch.cat([torch.zeros_like(sides), sides], dim=1)
    own = torch.cat([torch.zeros_like(boxes[:, :2]), boxes[:, 2:] - boxes[:, :2]], dim=1)
    best = box_iou(own, corner).argmax(dim=1) if len(boxes) else torch.zeros(0, dtype=torch.long, device=boxes.device)
    return torch.tensor(every, device=boxes.device)[best].view(-1, 2)


def _near(boxes: Tensor, objects: Tensor) -> Tensor:
    """Which predictions overlap an object of their image by more than half: N x A x H x W truth values."""
    shape = boxes.shape[:4]
    if not objects.shape[1]:
        return torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    flat = boxes.flatten(1, 3)
    low = torch.maximum(flat[:, :, None, :2], objects[:, None, :, :2])
    high = torch.minimum(flat[:, :, None, 2:], objects[:, None, :, 2:])
    both = (high - low).clamp(min=0).prod(dim=3)
    area, truth = ((one[..., 2:] - one[..., :2]).prod(dim=-1) for one in (flat, objects))
    union = area[:, :, None] + truth[:, None, :] - both
    # A product, not both / union: boxes without an area would divide zero by zero.
    return (both > _NEAR * union).any(dim=2).view(shape)


def _cross_entropy(raw: Tensor, aim: Tensor, scale: YoloScale) -> Tensor:
    """The cross entropy of logits, or of probabilities where the scale is ``activated``."""
    if scale.activated:
        return functional.binary_cross_entropy(raw.clamp(_TINY, 1.0 - _TINY), aim, reduction="none")
    return functional.binary_cross_entropy_with_logits(raw, aim, reduction="none")
