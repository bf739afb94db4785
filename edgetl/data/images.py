"""One image file to pixels: decoded whole or refused, then fitted to the network's input."""

from __future__ import annotations

import hashlib
import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from edgetl.arrays import UInt8Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import ImagePlacement, Size, Window, image_placement

Pixels = UInt8Array

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""The only parsers that are tried on a file. Pillow's JPEG parser also takes MPO."""

MAX_PIXELS = 178_956_970
"""Twice Pillow's own warning limit: half a gigabyte as RGB."""

MAX_BYTES = 1 << 30
"""The largest file that is read: no camera writes one, but a sparse file costs no disk and all memory when read."""

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# EXIF 2.32, tag 0x0112: how the stored image is turned to stand upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ON_THE_SIDE = frozenset({5, 6, 7, 8})
_TIFF_SIDES = TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH

# The keywords of all chunks that Pillow reads an orientation from.
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")

BARS = (127, 127, 127)
"""The grey that Darknet puts beside a letterboxed image: half, in bytes."""

_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_filters_lock = threading.Lock()


class BrokenImageError(Exception):
    """A file gives no pixels. Callers collect these errors; a few do not end a study."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read(path: Path) -> bytes:
    """The bytes of a file that is to be an image.

    Raises:
        BrokenImageError: no regular file (reading a pipe would never end), or beyond `MAX_BYTES`.
        OSError: the file is gone or cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BrokenImageError("not a regular file")
    if status.st_size > MAX_BYTES:
        raise BrokenImageError(f"too large: {status.st_size} bytes, the limit is {MAX_BYTES}")
    return path.read_bytes()


def decode(content: bytes, image_size: int | None = None) -> Image.Image:
    """The whole image as upright 8-bit RGB; of an animation, its first frame.

    Transparency is laid on white. 16-bit grey is scaled to 8 bits by value / 257, rounded.

    Args:
        content: the bytes of the file.
        image_size: where given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep
            twice this many pixels.

    Raises:
        BrokenImageError: empty, truncated, damaged, too large, no image of a known format, or without a known range.
    """
    image = _open(content)
    with _faults():
        if image_size is not None:
            # A JPEG decoded coarser costs a fraction; resized from twice its size, it looks the same to the network.
            image.draft(None, (2 * image_size, 2 * image_size))
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        rgb = _rgb(image)
        return rgb if method is None else rgb.transpose(method)


def check(content: bytes) -> None:
    """Refuse what can be refused without decoding: no image header, an absurd size, a missing end.

    Raises:
        BrokenImageError: `decode` would refuse the file for the same reason.
    """
    _open(content)


def upright_size(content: bytes) -> Size:
    """Width and height of the image that `decode` makes of the whole file, read from its header.

    Raises:
        BrokenImageError: as `check` does.
    """
    image = _open(content)
    # Pillow looks for a PNG's metadata behind its pixels, and decodes them all on the way.
    plain = image.format == "PNG" and not any(mark in content for mark in _PNG_METADATA)
    with _faults():
        turned = not plain and _orientation(image) in _ON_THE_SIDE
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Newer versions of Pillow give the upright size of a TIFF, older ones the stored one.
            width, height = (int(image.tag_v2[side]) for side in _TIFF_SIDES)
    return (height, width) if turned else (width, height)


def fit(image: Image.Image, preprocessing: Preprocessing, place: ImagePlacement | None = None) -> Pixels:
    """The image as the network sees it: resized (antialiased) and centred, cropped or between grey bars.

    A crop is equal, bit for bit, to torchvision's ``Resize`` and ``CenterCrop`` on Pillow images.

    Args:
        image: RGB.
        preprocessing: the input's size, how the image is fitted to it, and how it is interpolated.
        place: where the image lands, where that does not follow from its size because it was decoded smaller.

    Returns:
        height x width x 3, RGB.

    Raises:
        BrokenImageError: the image is so narrow that resizing its short side makes it too large.
    """
    place = place or image_placement(image.size, preprocessing)
    if place.size[0] * place.size[1] > MAX_PIXELS:
        raise BrokenImageError(
            f"{image.width} x {image.height} pixels: too narrow to be resized to {min(place.size)} pixels on its short "
            "side"
        )
    frame = preprocessing.width, preprocessing.height
    canvas = Image.new("RGB", frame, BARS)
    canvas.paste(*visible(image, place, (0, 0, *frame), preprocessing))
    return np.asarray(canvas)


def visible(
    image: Image.Image, place: ImagePlacement, window: Window, preprocessing: Preprocessing
) -> tuple[Image.Image, tuple[int, int]]:
    """The part of a placed image that a window of the input shows, and its left top corner.

    The image may have been decoded smaller than ``place.image``. It has to be in the window with a pixel at least.
    """
    resized = image.resize(place.size, RESAMPLING[preprocessing.interpolation])
    if place.mirrored:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (x, y), (width, height) = place.corner, place.size
    left, top = max(window[0], x), max(window[1], y)
    right, bottom = min(window[2], x + width), min(window[3], y + height)
    return resized.crop((left - x, top - y, right - x, bottom - y)), (left, top)


def generator(seed_material: str) -> np.random.Generator:
    """A random generator whose numbers depend on a text alone."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(seed_material.encode()).digest(), "big"))


def _open(content: bytes) -> Image.Image:
    if not content:
        raise BrokenImageError("empty file")
    with _faults():
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    # Pillow's own limit is a setting of the process that other packages lift.
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImageError(f"too large: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS} pixels")
    # The first end marker may be a thumbnail's, but none at all after the first scan is a file cut short.
    if image.format in {"JPEG", "MPO"} and content.find(b"\xff\xd9", content.find(b"\xff\xda")) < 0:
        raise BrokenImageError("truncated: a JPEG without its end marker")
    if image.format == "PNG" and content.rfind(b"IEND") < 0:
        raise BrokenImageError("truncated: a PNG without its IEND chunk")
    return image


@contextmanager
def _faults() -> Iterator[None]:
    """Turn what Pillow raises on a hostile file, and it raises nearly everything, into a `BrokenImageError`.

    Pillow's warnings on odd files are dropped: what matters of them is a reason here.
    """
    # `warnings.catch_warnings` per image will not do: it swaps state of the whole process under the other threads.
    if warnings.filters[:1] != [_IGNORE_PILLOW]:
        with _filters_lock:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except BrokenImageError:
        raise
    except Image.DecompressionBombError as error:
        # The class hides the two sides; its message gives their product.
        raise BrokenImageError(f"too large: {str(error).partition(',')[0]}") from error
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise BrokenImageError(f"the header is none of {known}: not an image, or cut short") from error
    except Exception as error:
        raise BrokenImageError(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # the pixels may be good though the metadata is damaged


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BrokenImageError("floating-point pixels have no known range; store the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise BrokenImageError(
                f"grey values from {low} to {high} do not fit 16 bits; store the image with 8 or 16 bits"
            )
        # Pillow would cut 16 bits off at 255. 65535 = 257 * 255; pixels of the transparent value become white.
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
