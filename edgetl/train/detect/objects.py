"""The objects of a batch of images that one head is trained to find."""

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
    """The objects that a head has to find in a batch of images.

    ``image``, ``boxes`` (M x 4 in pixels of the input) and ``classes`` (positions among the head's) have one row for
    each object. ``near`` (N x M' x 4) holds all boxes of every image, ignored ones among them, filled up with empty
    ones: a prediction near one of these is not held against the head.
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
        taught = own & ~drawn.ignored
        near.append(drawn.boxes[own])
        boxes.append(drawn.boxes[taught])
        image += [number] * int(taught.sum())
        kinds += [position[drawn.labels[row]] for row in np.flatnonzero(taught)]
    truth = np.concatenate(boxes) if boxes else np.empty((0, 4), np.float32)
    # An empty box overlaps nothing, so it may stand where an image has fewer boxes than another.
    filled = torch.zeros(len(near), max(map(len, near), default=0), 4)
    for row, every in zip(filled, near, strict=True):
        row[: len(every)] = torch.from_numpy(every)
    return Objects(
        images=len(batch),
        image=torch.tensor(image, dtype=torch.long),
        boxes=torch.from_numpy(truth.astype(np.float32).reshape(-1, 4)),
        classes=torch.tensor(kinds, dtype=torch.long),
        near=filled,
    )
