"""The objects of a batch of images, as one head sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgetl.arrays import Float32Array
from edgetl.data.box_views import ViewBoxes


@dataclass(frozen=True)
class Objects:
    """What a head has to find in a batch of images.

    ``image``, ``boxes`` (M x 4 in pixels of the input) and ``classes`` (positions among the head's) are one row an
    object. ``near`` (N x M' x 4) are all boxes of every image, ignored ones among them, filled up with empty ones:
    what is predicted near one of these is not held against the head.
    """

    images: int
    image: Tensor
    boxes: Tensor
    classes: Tensor
    near: Tensor

    def to(self, device: torch.device) -> Objects:
        tensors = (self.image, self.boxes, self.classes, self.near)
        return Objects(self.images, *(tensor.to(device) for tensor in tensors))


def objects(batch: Sequence[ViewBoxes], classes: Sequence[str]) -> Objects:
    """The objects of a batch that are of a head's classes; all others are background to it."""
    position = {label: number for number, label in enumerate(classes)}
    image: list[int] = []
    kinds: list[int] = []
    boxes: list[Float32Array] = []
    near: list[Float32Array] = []
    for number, drawn in enumerate(batch):
        own = np.array([label in position for label in drawn.labels], np.bool_)
        wanted = own & ~drawn.ignored
        near.append(drawn.boxes[own])
        boxes.append(drawn.boxes[wanted])
        image += [number] * int(wanted.sum())
        kinds += [position[drawn.labels[row]] for row in np.flatnonzero(wanted)]
    found = np.concatenate(boxes) if boxes else np.empty((0, 4), np.float32)
    return Objects(
        images=len(batch),
        image=torch.tensor(image, dtype=torch.long),
        boxes=torch.from_numpy(found.astype(np.float32).reshape(-1, 4)),
        classes=torch.tensor(kinds, dtype=torch.long),
        near=_filled(near),
    )


def _filled(boxes: Sequence[Float32Array]) -> Tensor:
    result = torch.zeros(len(boxes), max((len(own) for own in boxes), default=0), 4)
    for row, own in zip(result, boxes, strict=True):
        row[: len(own)] = torch.from_numpy(own)
    return result
