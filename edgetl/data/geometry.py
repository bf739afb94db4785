"""The placement of an image in the network's input, and of its boxes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetl.arrays import Float64Array
from edgetl.artifacts.bundle import Preprocessing

Boxes = Float64Array
"""M x 4: left, top, right and bottom edges in pixels."""

Size = tuple[int, int]
"""Width and height in pixels."""

Window = tuple[int, int, int, int]
"""A part of the network's input: left, top, right and bottom, in whole pixels."""


@dataclass(frozen=True)
class ImagePlacement:
    """The placement of an upright image of ``image`` pixels: resized to ``size``, its left top corner at ``corner``.

    ``size`` and ``corner`` are whole pixels of the network's input; what leaves the input is cut off.
    """

    image: Size
    corner: tuple[int, int]
    size: Size
    mirrored: bool = False

    @property
    def detail(self) -> int:
        """The short side, in pixels, of the smallest image of this shape that need not be enlarged to ``size``."""
        short = min(self.image)
        # The quotients are rounded up, in whole numbers.
        return max(-(-side * short // whole) for side, whole in zip(self.size, self.image, strict=True))

    def to_input(self, boxes: npt.ArrayLike) -> Boxes:
        """Boxes in pixels of the input, M x 4, from boxes in pixels of the image. Nothing is clipped."""
        resized: Boxes = _table(boxes) * np.tile(np.divide(self.size, self.image), 2)
        result: Boxes = self._turned(resized) + np.tile(self.corner, 2)
        return result

    def to_image(self, boxes: npt.ArrayLike) -> Boxes:
        """Boxes in pixels of the image, M x 4 and clipped to it, from boxes in pixels of the input."""
        result = self._turned(_table(boxes) - np.tile(self.corner, 2)) * np.tile(np.divide(self.image, self.size), 2)
        return clipped(result, (0, 0, *self.image))

    def _turned(self, boxes: Boxes) -> Boxes:
        """The boxes, mirrored within the resized image where the image is mirrored."""
        if self.mirrored:
            boxes[:, [0, 2]] = self.size[0] - boxes[:, [2, 0]]
        return boxes


def image_placement(image: Size, preprocessing: Preprocessing) -> ImagePlacement:
    """The placement of the whole of an upright image under ``preprocessing.fit``.

    A letterbox is Darknet's: both sides scaled by one factor, truncated to whole pixels (but to one at least), and
    centred.
    """
    width, height = image
    frame = preprocessing.width, preprocessing.height
    if preprocessing.fit == "stretch":
        return ImagePlacement(image, (0, 0), frame)
    if preprocessing.fit == "letterbox":
        size = letterboxed(image, frame)
        return ImagePlacement(image, ((frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2), size)
    # A crop: torchvision's Resize truncates the long side, and its CenterCrop rounds half to even. So does this.
    side, (short, long) = preprocessing.width, sorted(image)
    long = int(side * long / short)
    size = (side, long) if width <= height else (long, side)
    return ImagePlacement(image, (-round((size[0] - side) / 2.0), -round((size[1] - side) / 2.0)), size)


def letterboxed(image: Size, frame: Size) -> Size:
    """The largest size of the image's shape that fits into the frame, in whole pixels as Darknet truncates them."""
    (width, height), (across, down) = image, frame
    if across * height < down * width:
        return across, max(1, height * across // width)
    return max(1, width * down // height), down


def clipped(boxes: Boxes, window: Window) -> Boxes:
    """The part of every box that lies in a window; a box outside has no area left."""
    left, top, right, bottom = window
    result: Boxes = np.clip(boxes, (left, top, left, top), (right, bottom, right, bottom))
    return result


def areas(boxes: Boxes) -> Float64Array:
    """The areas of M x 4 boxes, in square pixels."""
    result: Float64Array = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return result


def _table(boxes: npt.ArrayLike) -> Boxes:
    return np.array(boxes, np.float64).reshape(-1, 4)
