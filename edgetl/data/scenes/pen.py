"""The drawing tools of synthetic scenes: repeatable choices, colours, a pose and a pen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]
CanvasPoint = tuple[float, float]
_T = TypeVar("_T")

WHITE, BLACK, RED, BLUE, YELLOW = (240, 240, 236), (24, 24, 28), (198, 24, 32), (22, 74, 168), (246, 196, 30)
GREY, RUBBER, GLASS = (128, 130, 134), (34, 34, 38), (112, 142, 166)
CLOTHES = ((178, 44, 48), (44, 72, 142), (52, 116, 66), (210, 170, 60), (86, 60, 112), (56, 58, 64), (196, 196, 190))
PAINT = (*CLOTHES, (216, 218, 220), (156, 32, 36), (36, 92, 150), (70, 72, 78), (212, 120, 40))
GREENS = ((74, 116, 52), (96, 124, 60), (58, 92, 50), (124, 118, 70))
# Circles are polygons: Pillow's ellipses follow neither turn nor perspective.
CIRCLE: tuple[CanvasPoint, ...] = tuple((math.cos(math.tau * k / 20), math.sin(math.tau * k / 20)) for k in range(20))


def scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(c * factor)) for c in colour)
    return red, green, blue


class Dice:
    """Random choices by `random.Random.random` alone: the only stream that Python promises to keep between versions."""

    def __init__(self, key: str) -> None:
        self._source = random.Random(key)

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._source.random()

    def chance(self, probability: float) -> bool:
        return self._source.random() < probability

    def pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(self._source.random() * len(choices))]

    def sign(self) -> int:
        return 1 if self.chance(0.5) else -1

    def shade(self, colour: Colour, spread: float = 26) -> Colour:
        """The colour, lighter or darker by up to ``spread`` and off its hue by up to a third of it."""
        light = self.between(-spread, spread)
        red, green, blue = (min(255, max(0, round(c + light + self.between(-spread, spread) / 3))) for c in colour)
        return red, green, blue

    def bytes(self, count: int) -> bytes:
        return self._source.getrandbits(8 * count).to_bytes(count, "little")


@dataclass(frozen=True)
class Pose:
    """The pose of an object: centre and half-size in canvas pixels, turn in radians, tilt as perspective.

    ``squeeze`` narrows the object, as seen from an angle.
    """

    x: float
    y: float
    half: float
    turn: float = 0.0
    tilt: CanvasPoint = (0.0, 0.0)
    mirrored: bool = False
    squeeze: float = 1.0

    def __call__(self, x: float, y: float) -> CanvasPoint:
        x = -x * self.squeeze if self.mirrored else x * self.squeeze
        # Perspective: the side that is tilted away is drawn smaller.
        depth = self.half / (1 + self.tilt[0] * x + self.tilt[1] * y)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return self.x + depth * (cos * x - sin * y), self.y + depth * (sin * x + cos * y)


@dataclass(frozen=True)
class Marks:
    """A map beside the picture with the number of the object that is seen at every pixel, or 0 for none."""

    canvas: ImageDraw
    number: int = 0


class Pen:
    """Draws filled shapes given in an object's coordinates, and marks what it draws as the object's."""

    def __init__(self, canvas: ImageDraw, pose: Pose, marks: Marks | None = None) -> None:
        self._canvas = canvas
        self._pose = pose
        self._marks = marks

    def unmarked(self) -> Pen:
        """A pen for shadows and poles: they hide what is behind them, and are no part of the object."""
        return Pen(self._canvas, self._pose, self._marks and Marks(self._marks.canvas))

    def polygon(self, colour: Colour, *points: CanvasPoint) -> None:
        corners = [self._pose(x, y) for x, y in points]
        self._canvas.polygon(corners, fill=colour)
        if self._marks:
            self._marks.canvas.polygon(corners, fill=self._marks.number)

    def box(self, colour: Colour, x0: float, y0: float, x1: float, y1: float) -> None:
        self.polygon(colour, (x0, y0), (x1, y0), (x1, y1), (x0, y1))

    def ellipse(self, colour: Colour, x: float, y: float, rx: float, ry: float | None = None) -> None:
        ry = rx if ry is None else ry
        self.polygon(colour, *((x + rx * cos, y + ry * sin) for cos, sin in CIRCLE))

    def line(self, colour: Colour, width: float, *points: CanvasPoint) -> None:
        """Draw a stroke through the points, ``width`` wide in object coordinates."""
        ends, pixels = [self._pose(x, y) for x, y in points], max(1, round(width * self._pose.half))
        # Without joints, thick strokes have notches at their corners.
        self._canvas.line(ends, fill=colour, width=pixels, joint="curve")
        if self._marks:
            self._marks.canvas.line(ends, fill=self._marks.number, width=pixels, joint="curve")

    def ring(self, colour: Colour, width: float, x: float, y: float, radius: float) -> None:
        self.line(colour, width, *((x + radius * cos, y + radius * sin) for cos, sin in (*CIRCLE, CIRCLE[0])))


Artist = Callable[[Pen, Dice], None]
"""A function that draws one object, which spans about -1 to 1 in x (right) and y (down)."""
