"""How the images of an index are rendered for `edgetl.data.stream`: as they are, or in augmented views."""

from __future__ import annotations

from collections.abc import Callable

from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import placement
from edgetl.data.images import Pixels, augment, decode, fit, upright_size
from edgetl.data.stream import ImageFile


def plain(content: bytes, preprocessing: Preprocessing) -> Pixels:
    """The image as the network sees it, height x width x 3; a large JPEG is decoded no larger than that takes.

    Raises:
        BrokenImageError: as `decode` and `fit` do.
    """
    if preprocessing.fit == "crop":
        return fit(decode(content, preprocessing.width), preprocessing)
    # Where boxes land follows from the whole image's size: what is decoded smaller is rounded.
    place = placement(upright_size(content), preprocessing)
    return fit(decode(content, place.detail), preprocessing, place)


def renderer(
    preprocessing: Preprocessing, *, view: int = 0, seed: int = 0, flip: bool = False
) -> Callable[[bytes, ImageFile], Pixels]:
    """One view of whole images, without regard to what is where in them.

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
