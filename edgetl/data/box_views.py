"""Augmented views of images with boxes. Where a view puts boxes is computed without decoding its images.

A view lays one image, or four of them (a mosaic, Bochkovskiy et al. 2020, YOLOv4, section 3.4), on the network's input.
Everything that chance decides follows from the seed, the view's number and the image's content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.config import AugmentationSettings
from edgetl.data.geometry import ImagePlacement, Window, areas, clipped, image_placement
from edgetl.data.images import BARS, BrokenImageError, Pixels, decode, generator, visible
from edgetl.data.stream import verified

LEAST_VISIBLE = 0.3
"""Objects of which a view shows a smaller share of their area are ignored in training."""

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
_MOSAIC_SHARE = 0.5
_MOSAIC_CENTRE = (0.35, 0.65)
_MOST_FILLING = 3.0
"""A very narrow image is enlarged by no more than this to fill its window of a mosaic."""


@dataclass(frozen=True)
class BoxView:
    """The settings of one rendering of boxed images: number 0 is the plain one, others are augmented.

    Attributes:
        preprocessing: letterbox or stretch: the plain view shows the whole image.
        number: of the view.
        seed: of the augmentation.
        augmentation: what may be done to an image. With ``mosaic``, half of the views are mosaics.
        others: the images of the split, of which a mosaic takes three. Their order counts.
    """

    preprocessing: Preprocessing
    number: int = 0
    seed: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    others: tuple[BoxedImage, ...] = field(default=(), repr=False)


class ViewBoxes(NamedTuple):
    """The boxes of a view: M x 4 in pixels of the input, M labels, and M marks of ignored ones."""

    boxes: Float32Array
    labels: tuple[str, ...]
    ignored: BoolArray


@dataclass(frozen=True)
class MosaicTile:
    """A tile of a view: an image, where it lands in the input, the window in which it is seen, and its light.

    ``light`` are factors of brightness, contrast and saturation.
    """

    image: BoxedImage
    place: ImagePlacement
    window: Window
    light: tuple[float, float, float] | None = None


def tiles(image: BoxedImage, view: BoxView) -> tuple[MosaicTile, ...]:
    """The tiles that a view of an image consists of; their windows do not overlap."""
    assert view.preprocessing.fit != "crop", "boxes may lie outside a crop"
    frame = (0, 0, view.preprocessing.width, view.preprocessing.height)
    if view.number == 0:
        return (MosaicTile(image, image_placement((image.width, image.height), view.preprocessing), frame),)
    # Seeded by the content: the order of images and the number of threads change nothing.
    random = generator(f"{view.seed}:{view.number}:{image.sha256}")
    if not (view.augmentation.mosaic and random.random() < _MOSAIC_SHARE):
        return (_tile(image, frame, view, random),)
    x, y = (round(side * random.uniform(*_MOSAIC_CENTRE)) for side in frame[2:])
    windows = ((0, 0, x, y), (x, 0, frame[2], y), (0, y, x, frame[3]), (x, y, *frame[2:]))
    # One more than a mosaic takes: the image itself may be among them. It stands in where there are too few.
    drawn = random.choice(len(view.others), min(4, len(view.others)), replace=False) if view.others else ()
    partners = [view.others[position] for position in drawn if view.others[position].sha256 != image.sha256]
    images = [image, *[*partners, image, image, image][:3]]
    order = random.permutation(len(windows))
    return tuple(_tile(images[k], window, view, random, filled=True) for k, window in zip(order, windows, strict=True))


def view_boxes(image: BoxedImage, view: BoxView) -> ViewBoxes:
    """The boxes of a view of an image.

    Boxes are clipped to what can be seen of the image. Those with nothing left are not there; those with less than
    `LEAST_VISIBLE` left are ignored.
    """
    boxes: list[Float32Array] = []
    labels: list[str] = []
    ignored: list[BoolArray] = []
    for tile in tiles(image, view):
        own = tile.image.boxes
        placed = tile.place.to_input([(box.x1, box.y1, box.x2, box.y2) for box in own])
        seen = clipped(placed, tile.window)
        rest = areas(seen)
        kept = np.flatnonzero(rest > 0)
        boxes.append(seen[kept].astype(np.float32))
        labels += (own[row].label for row in kept)
        marks = np.array([box.ignored for box in own], np.bool_) | (rest < LEAST_VISIBLE * areas(placed))
        ignored.append(marks[kept])
    return ViewBoxes(np.concatenate(boxes), tuple(labels), np.concatenate(ignored))


def box_renderer(view: BoxView, root: Path) -> Callable[[bytes, BoxedImage], Pixels]:
    """A function that renders a view for `edgetl.data.stream`: height x width x 3, RGB, with grey bars where no image
    is.

    Args:
        view: which one.
        root: what the paths of images are relative to: a mosaic reads the other images itself.
    """
    preprocessing = view.preprocessing

    def render(content: bytes, image: BoxedImage) -> Pixels:
        canvas = Image.new("RGB", (preprocessing.width, preprocessing.height), BARS)
        for tile in tiles(image, view):
            try:
                file = content if tile.image is image else verified(root, tile.image)
                picture = decode(file, tile.place.detail)
            except BrokenImageError as error:
                if tile.image is image:
                    raise
                raise BrokenImageError(f"a mosaic with {tile.image.path}, which is broken: {error.reason}") from error
            part, corner = visible(picture, tile.place, tile.window, preprocessing)
            for enhancer, factor in zip(_ENHANCERS, tile.light or (), strict=False):
                part = enhancer(part).enhance(factor)
            canvas.paste(part, corner)
        return np.asarray(canvas)

    return render


def _tile(
    image: BoxedImage, window: Window, view: BoxView, random: np.random.Generator, filled: bool = False
) -> MosaicTile:
    """A tile with the image zoomed around its plain placement, shifted, perhaps mirrored, and in another light.

    With ``filled``, zoom 1 is where the image covers the whole window, its bars outside.
    """
    augmentation = view.augmentation
    left, top, right, bottom = window
    own = view.preprocessing.replaced(width=right - left, height=bottom - top)
    plain = image_placement((image.width, image.height), own)
    zoom = 1.0 + random.uniform(-augmentation.scale, augmentation.scale)
    corner, frame = plain.corner, plain.size
    if filled:
        corner, frame = (0, 0), (own.width, own.height)
        zoom *= min(max(own.width / plain.size[0], own.height / plain.size[1]), _MOST_FILLING)
    # Smaller than its frame, the image lies somewhere within it; larger, it covers it.
    sizes = [max(1, round(side * zoom)) for side in plain.size]
    moves = [round((side - size) * random.random()) for side, size in zip(frame, sizes, strict=True)]
    place = ImagePlacement(
        image=plain.image,
        corner=(left + corner[0] + moves[0], top + corner[1] + moves[1]),
        size=(sizes[0], sizes[1]),
        mirrored=augmentation.flip and bool(random.random() < 0.5),
    )
    brightness, contrast, saturation = 1.0 + random.uniform(-augmentation.color_jitter, augmentation.color_jitter, 3)
    return MosaicTile(image, place, window, (float(brightness), float(contrast), float(saturation)))
