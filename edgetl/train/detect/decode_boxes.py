"""Raw outputs of YOLO networks as boxes and scores, in torch: what the loss and the validation of training read.

The formulas are those of Darknet's ``yolo`` and ``region`` layers (Redmon & Farhadi 2016 and 2018; Bochkovskiy et al.
2020 for ``scale_xy``; Wang et al. 2020 for ``activated``). `edgetl.graph` writes the same ones as ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from edgetl.arrays import Float32Array
from edgetl.artifacts.detector_bundle import VALUES, YoloScale
from edgetl.config import NmsSettings

_LARGEST_EXPONENT = 10.0
"""A box 22,000 times as large as its anchor is a fault of the weights; infinity would spoil every other box."""

_MOST_CANDIDATES = 1000


@dataclass(frozen=True)
class InputSize:
    """Width and height of the network's input in pixels."""

    width: int
    height: int


def values(raw: Tensor, scale: YoloScale) -> Tensor:
    """N x A * (5 + C) x H x W to N x A x H x W x (5 + C)."""
    batch, channels, height, width = raw.shape
    anchors = len(scale.anchors)
    return raw.view(batch, anchors, channels // anchors, height, width).permute(0, 1, 3, 4, 2)


def corners(found: Tensor, scale: YoloScale, frame: InputSize) -> Tensor:
    """Boxes of `values`, N x A x H x W x 4: left, top, right, bottom in pixels of the input."""
    _, _, height, width, _ = found.shape
    anchors = found.new_tensor(scale.anchors).view(1, -1, 1, 1, 2)
    columns = torch.arange(width, device=found.device, dtype=found.dtype).view(1, 1, 1, width)
    rows = torch.arange(height, device=found.device, dtype=found.dtype).view(1, 1, height, 1)
    if scale.activated:
        place, sides = found[..., :2], (2.0 * found[..., 2:4]) ** 2 * anchors
    else:
        place, sides = found[..., :2].sigmoid(), found[..., 2:4].clamp(max=_LARGEST_EXPONENT).exp() * anchors
    place = place * scale.scale_xy - (scale.scale_xy - 1.0) / 2.0
    x = (place[..., 0] + columns) * (frame.width / width)
    y = (place[..., 1] + rows) * (frame.height / height)
    centre = torch.stack([x, y], dim=-1)
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)


def scores(found: Tensor, scale: YoloScale) -> Tensor:
    """Objectness times class of `values`, N x A x H x W x C."""
    objectness, classes = found[..., 4:5], found[..., 5:]
    if scale.activated:
        return objectness * classes
    return objectness.sigmoid() * (classes.softmax(dim=-1) if scale.softmax else classes.sigmoid())


def detections(
    raws: Sequence[Tensor], scales: Sequence[YoloScale], frame: InputSize, suppression: NmsSettings
) -> list[Float32Array]:
    """For each image K x 6: left, top, right, bottom (pixels of the input), score, class; best first."""
    taken = [(values(raw, scale), scale) for raw, scale in zip(raws, scales, strict=True)]
    boxes = torch.cat([corners(found, scale, frame).flatten(1, 3) for found, scale in taken], dim=1)
    every = torch.cat([scores(found, scale).flatten(1, 3) for found, scale in taken], dim=1)
    return [_suppressed(*image, suppression) for image in zip(boxes, every, strict=True)]


def _suppressed(boxes: Tensor, every: Tensor, suppression: NmsSettings) -> Float32Array:
    """As in `edgetl.graph`, of B x 4 boxes with B x C scores: of equal ones those of the first label come first."""
    by_label = every.T
    least = max(float(np.float32(suppression.score_threshold)), float(np.finfo(np.float32).tiny))
    label, box = torch.nonzero(by_label >= least, as_tuple=True)
    score = by_label[label, box]
    best = score.argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
    box, label, score = box[best], label[best], score[best]
    kept = nms(_apart(boxes[box], label), score.double(), suppression.iou_threshold)[: suppression.max_detections]
    columns = [boxes[box[kept]], score[kept, None], label[kept, None].to(boxes)]
    result: Float32Array = torch.cat(columns, dim=1).cpu().numpy().reshape(-1, VALUES)
    return result


def _apart(boxes: Tensor, labels: Tensor) -> Tensor:
    """Boxes moved so that those of different labels do not touch, in float64: an untrained head's may be huge.

    torchvision's ``batched_nms`` does so too, but takes no heed of boxes that begin outside the image.
    """
    if not len(boxes):
        return boxes.double()
    moved = boxes.double() - boxes.min()
    return moved + labels[:, None] * (moved.max() + 1.0)
