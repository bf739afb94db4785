"""Raw outputs of YOLO networks as boxes and scores, in torch, for the loss and the validation of training.

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

# A box 22,000 times as large as its anchor is a fault of the weights; infinity would spoil every other box.
_LARGEST_EXPONENT = 10.0
_MOST_CANDIDATES = 1000


@dataclass(frozen=True)
class InputSize:
    """Width and height of the network's input in pixels."""

    width: int
    height: int


def values(raw: Tensor, scale: YoloScale) -> Tensor:
    """Split raw outputs by anchor: N x A * (5 + C) x H x W to N x A x H x W x (5 + C)."""
    batch, channels, height, width = raw.shape
    anchors = len(scale.anchors)
    return raw.view(batch, anchors, channels // anchors, height, width).permute(0, 1, 3, 4, 2)


def corners(raw: Tensor, scale: YoloScale, frame: InputSize) -> Tensor:
    """The boxes of `values`, N x A x H x W x 4: left, top, right, bottom in pixels of the input."""
    _, _, height, width, _ = raw.shape
    anchors = raw.new_tensor(scale.anchors).view(1, -1, 1, 1, 2)
    columns = torch.arange(width, device=raw.device, dtype=raw.dtype).view(1, 1, 1, width)
    rows = torch.arange(height, device=raw.device, dtype=raw.dtype).view(1, 1, height, 1)
    if scale.activated:
        place, sides = raw[..., :2], (2.0 * raw[..., 2:4]) ** 2 * anchors
    else:
        place, sides = raw[..., :2].sigmoid(), raw[..., 2:4].clamp(max=_LARGEST_EXPONENT).exp() * anchors
    place = place * scale.scale_xy - (scale.scale_xy - 1.0) / 2.0
    x = (place[..., 0] + columns) * (frame.width / width)
    y = (place[..., 1] + rows) * (frame.height / height)
    centre = torch.stack([x, y], dim=-1)
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=-1)


def scores(raw: Tensor, scale: YoloScale) -> Tensor:
    """The scores of `values`, objectness times class: N x A x H x W x C."""
    objectness, classes = raw[..., 4:5], raw[..., 5:]
    if scale.activated:
        return objectness * classes
    return objectness.sigmoid() * (classes.softmax(dim=-1) if scale.softmax else classes.sigmoid())


def detections(
    raws: Sequence[Tensor], scales: Sequence[YoloScale], frame: InputSize, suppression: NmsSettings
) -> list[Float32Array]:
    """The detections of each image, K x 6: left, top, right, bottom (pixels of the input), score, class; best first."""
    parts = [(values(raw, scale), scale) for raw, scale in zip(raws, scales, strict=True)]
    boxes = torch.cat([corners(raw, scale, frame).flatten(1, 3) for raw, scale in parts], dim=1)
    every = torch.cat([scores(raw, scale).flatten(1, 3) for raw, scale in parts], dim=1)
    return [_suppressed(*image, suppression) for image in zip(boxes, every, strict=True)]


def _suppressed(boxes: Tensor, every: Tensor, suppression: NmsSettings) -> Float32Array:
    """The detections that suppression leaves of B x 4 boxes with B x C scores, as in `edgetl.graph`."""
    by_label = every.T  # label by label: of equal scores those of the first label come first, as in the graph
    least = max(float(np.float32(suppression.score_threshold)), float(np.finfo(np.float32).tiny))
    label, box = torch.nonzero(by_label >= least, as_tuple=True)
    score = by_label[label, box]
    best = score.argsort(descending=True, stable=True)[:_MOST_CANDIDATES]
    box, label, score = box[best], label[best], score[best]
    # Boxes of different labels are moved apart, so that they do not suppress each other; in float64, as those of an
    # untrained head may be huge. torchvision's batched_nms takes no heed of boxes that begin outside the image.
    moved = boxes[box].double()
    if len(moved):
        moved -= moved.min()
        moved += label[:, None] * (moved.max() + 1.0)
    kept = nms(moved, score.double(), suppression.iou_threshold)[: suppression.max_detections]
    columns = [boxes[box[kept]], score[kept, None], label[kept, None].to(boxes)]
    result: Float32Array = torch.cat(columns, dim=1).cpu().numpy().reshape(-1, VALUES)
    return result
