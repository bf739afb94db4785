"""Renderers of labelled images for `edgetl.data.stream`: as they are, or in augmented views."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import ImagePlacement, image_placement
from edgetl.data.images import RESAMPLING, Pixels, decode, fit, generator, upright_size
from edgetl.data.stream import ImageFile

_CROP_AREA = (0.35, 1.0)
_CROP_ASPECT = (3 / 4, 4 / 3)
_JITTER = (0.8, 1.2)


def plain(content: bytes, preprocessing: Preprocessing) -> Pixels:
    """The image as the network sees it, height x width x 3; a large JPEG is decoded no larger than that takes.

    Raises:
        BrokenImageError: as `decode` and `fit` do.
    """
    image, place = decoded(content, preprocessing)
    return fit(image, preprocessing, place)


def decoded(content: bytes, preprocessing: Preprocessing) -> tuple[Image.Image, ImagePlacement | None]:
    """The image, decoded no larger than its preprocessing needs, and its placement where its own size does not tell.

    Raises:
        BrokenImageError: as `decode` does.
    """
    if preprocessing.fit == "crop":
        return decode(content, preprocessing.width), None
    # Where boxes land follows from the whole image's size: what is decoded smaller is rounded.
    place = image_placement(upright_size(content), preprocessing)
    return decode(content, place.detail), place


def renderer(
    preprocessing: Preprocessing, *, view: int = 0, seed: int = 0, flip: bool = False
) -> Callable[[bytes, ImageFile], Pixels]:
    """A function that renders one view of whole images, without regard to objects in them.

    Args:
        preprocessing: size, fit and interpolation.
        view: 0 for the image as it is; from 1 on, augmented views that differ by their number.
        seed: of the augmentation.
        flip: views may be mirrored.
    """

    def render(content: bytes, file: ImageFile) -> Pixels:
        if view == 0:
            return plain(content, preprocessing)
        image = decode(content, preprocessing.width)
        return augment(image, preprocessing, f"{seed}:{view}:{file.sha256}", flip)

    return render


def augment(image: Image.Image, preprocessing: Preprocessing, seed_material: str, flip: bool) -> Pixels:
    """One random view of the image; equal ``seed_material`` gives equal pixels.

    A random resized crop (Szegedy et al. 2015, arXiv 1409.4842, as in torchvision, with an area from 0.35 to 1),
    brightness and contrast within 20 %, and, only with ``flip``, a mirror image in half of the views.

    Returns:
        S x S x 3, RGB.
    """
    random = generator(seed_material)
    size = (preprocessing.width, preprocessing.height)
    view = image.crop(_random_crop(image.size, random)).resize(size, RESAMPLING[preprocessing.interpolation])
    view = ImageEnhance.Brightness(view).enhance(random.uniform(*_JITTER))
    view = ImageEnhance.Contrast(view).enhance(random.uniform(*_JITTER))
    if flip and random.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def _random_crop(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop: the first of ten tries that fits, else the largest centre crop of an
    allowed aspect.
    """
    width, height = size
    for _ in range(10):
        area = width * height * random.uniform(*_CROP_AREA)
        # Drawn on a logarithmic scale: wide and tall crops are equally likely.
        aspect = math.exp(random.uniform(math.log(_CROP_ASPECT[0]), math.log(_CROP_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    w = max(1, min(width, round(height * _CROP_ASPECT[1])))
    h = max(1, min(height, round(width / _CROP_ASPECT[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
