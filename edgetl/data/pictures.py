"""Pictures with a model's detections and labels drawn on them."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from edgetl.artifacts.predictions import Classification, Detection, Prediction

_LINES = 320
_LETTERS = 45
"""Lines and letters are as high as the longer side over these."""

_THINNEST, _SMALLEST = 2, 12


def annotated(image: Image.Image, prediction: Prediction) -> Image.Image:
    """A copy of an upright RGB image with boxes and labels on it.

    A label has the same colour in every picture. The best boxes are drawn last, so they lie above the others.
    """
    picture = image.copy()
    pen = _Pen(picture)
    for detection in reversed(prediction.detections or ()):
        pen.box(detection)
    pen.list(prediction.labels or ())
    return picture


class _Pen:
    def __init__(self, picture: Image.Image) -> None:
        longer = max(picture.size)
        self._draw = ImageDraw.Draw(picture)
        self._size = picture.size
        self._width = max(_THINNEST, round(longer / _LINES))
        self._font = ImageFont.load_default(max(_SMALLEST, round(longer / _LETTERS)))

    def box(self, found: Detection) -> None:
        left, top, right, bottom = (round(edge) for edge in found.xyxy)
        colour = _colour(found.label)
        # Pillow counts the last row and column in.
        corners = [left, top, max(left, right - 1), max(top, bottom - 1)]
        self._draw.rectangle(corners, outline=colour, width=self._width)
        self._caption(f"{found.label} {found.score:.2f}", left, top, colour)

    def list(self, guesses: Iterable[Classification]) -> None:
        top = 0
        for guess in guesses:
            top = self._caption(f"{guess.label} {guess.probability:.2f}", 0, top, _colour(guess.label), below=True)

    def _caption(self, text: str, left: int, edge: int, colour: tuple[int, int, int], below: bool = False) -> int:
        """Draw text on a filled ground, above a box's upper edge where there is room; return its own lower edge."""
        # Black or white, whichever contrasts more: relative luminance of WCAG 2.1.
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (part / 255 for part in colour)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        ink = "black" if luminance > 0.179 else "white"
        margin = self._width
        x0, _, x1, y1 = self._draw.textbbox((0, 0), text, font=self._font)
        height = margin + (
            sum(self._font.getmetrics()) if isinstance(self._font, ImageFont.FreeTypeFont) else round(y1)
        )
        width = round(x1 - x0) + 2 * margin
        left = max(0, min(left, self._size[0] - width))
        top = edge if below or edge < height else edge - height
        self._draw.rectangle([left, top, left + width - 1, top + height - 1], fill=colour)
        self._draw.text((left + margin - x0, top + margin // 2), text, font=self._font, fill=ink)
        return top + height


def _colour(label: str) -> tuple[int, int, int]:
    """A colour of full saturation, with a hue and a lightness by the label's digest."""
    hue, lightness, *_ = hashlib.sha256(label.encode()).digest()
    red, green, blue = colorsys.hls_to_rgb(hue / 256, 0.35 + 0.3 * lightness / 255, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
