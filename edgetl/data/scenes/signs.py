"""Traffic signs of the synthetic scenes, one function per label, and street furniture of no label.

Nothing depends on installed fonts: letters and digits are strokes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetl.data.scenes.pen import (
    BLACK,
    BLUE,
    GREENS,
    GREY,
    PAINT,
    RED,
    WHITE,
    YELLOW,
    Artist,
    CanvasPoint,
    Colour,
    Dice,
    Pen,
    scaled,
)


def _pole(pen: Pen) -> None:
    pen.unmarked().box(GREY, -0.07, 0.4, 0.07, 3.0)


def _plate(pen: Pen, dice: Dice, rim: Colour, face: Colour, corners: int, turn: float, band: float = 0.2) -> None:
    """Draw a regular sign plate: a rim and a face, both as weathered as each other. Many corners make a disc."""
    _pole(pen)
    for colour, radius in ((rim, 0.95), (face, 0.95 - band)):
        angles = (math.tau * (k / corners + turn) for k in range(corners))
        pen.polygon(dice.shade(colour), *((radius * math.cos(a), radius * math.sin(a)) for a in angles))


def draw_stop(pen: Pen, dice: Dice) -> None:
    _plate(pen, dice, WHITE, RED, corners=8, turn=1 / 16, band=0.08)
    ink = dice.shade(WHITE, 12)
    pen.line(ink, 0.09, (-0.43, -0.2), (-0.63, -0.22), (-0.63, -0.02), (-0.43, 0.02), (-0.43, 0.22), (-0.63, 0.2))
    pen.line(ink, 0.09, (-0.33, -0.21), (-0.05, -0.21))
    pen.line(ink, 0.09, (-0.19, -0.21), (-0.19, 0.24))
    pen.line(ink, 0.09, *((0.16 + 0.12 * x, 0.22 * y) for x, y in (*_OVAL, _OVAL[0])))
    pen.line(ink, 0.09, (0.42, 0.24), (0.42, -0.2), (0.62, -0.2), (0.64, 0.02), (0.42, 0.04))


def draw_yield(pen: Pen, dice: Dice) -> None:
    _plate(pen, dice, RED, WHITE, corners=3, turn=0.25, band=0.4)


def _speed(*digits: Sequence[CanvasPoint]) -> Artist:
    def draw(pen: Pen, dice: Dice) -> None:
        _plate(pen, dice, RED, WHITE, corners=20, turn=0)
        ink = dice.shade(BLACK, 20)
        for x, digit in zip((-0.3, 0.3), digits, strict=True):
            pen.line(ink, 0.15, *((x + 0.21 * u, 0.38 * v) for u, v in digit))

    return draw


def draw_no_entry(pen: Pen, dice: Dice) -> None:
    _plate(pen, dice, WHITE, RED, corners=20, turn=0, band=0.07)
    pen.box(dice.shade(WHITE, 12), -0.62, -0.16, 0.62, 0.16)


def draw_priority(pen: Pen, dice: Dice) -> None:
    _plate(pen, dice, WHITE, YELLOW, corners=4, turn=0, band=0.26)


def draw_pedestrian_crossing(pen: Pen, dice: Dice) -> None:
    _pole(pen)
    pen.box(dice.shade(BLUE), -0.84, -0.84, 0.84, 0.84)
    pen.polygon(dice.shade(WHITE, 12), (0, -0.68), (0.72, 0.64), (-0.72, 0.64))
    ink = dice.shade(BLACK, 16)
    pen.ellipse(ink, 0.02, -0.24, 0.11)
    pen.line(ink, 0.15, (0, -0.1), (-0.02, 0.22))
    pen.line(ink, 0.1, (-0.24, 0.14), (0, -0.04), (0.2, 0.16))
    pen.line(ink, 0.11, (-0.26, 0.56), (-0.02, 0.2), (0.24, 0.56))


def _turn(side: int) -> Artist:
    def draw(pen: Pen, dice: Dice) -> None:
        _plate(pen, dice, WHITE, BLUE, corners=20, turn=0, band=0.07)
        ink = dice.shade(WHITE, 12)
        pen.line(ink, 0.2, (-side * 0.32, 0.6), (-side * 0.32, -0.08), (side * 0.2, -0.08))
        pen.polygon(ink, (side * 0.14, -0.44), (side * 0.66, -0.08), (side * 0.14, 0.28))

    return draw


def draw_roundabout(pen: Pen, dice: Dice) -> None:
    _plate(pen, dice, WHITE, BLUE, corners=20, turn=0, band=0.07)
    ink = dice.shade(WHITE, 12)
    for third in range(3):
        start = math.tau * third / 3 + 0.4
        arc = [start + 1.15 * k / 4 for k in range(5)]
        pen.line(ink, 0.17, *((0.48 * math.cos(a), 0.48 * math.sin(a)) for a in arc))
        tip = ((0.22, arc[-1] - 0.05), (0.76, arc[-1] - 0.05), (0.48, arc[-1] + 0.75))
        pen.polygon(ink, *((r * math.cos(a), r * math.sin(a)) for r, a in tip))


def draw_cone(pen: Pen, dice: Dice) -> None:
    pen.polygon(dice.shade((226, 106, 34)), (-0.6, 1), (0, -0.9), (0.6, 1))
    pen.polygon(WHITE, (-0.33, 0.2), (-0.2, -0.25), (0.2, -0.25), (0.33, 0.2))


def draw_bin(pen: Pen, dice: Dice) -> None:
    colour = dice.shade(dice.pick(PAINT), 40)
    pen.polygon(colour, (-0.6, -0.7), (0.6, -0.7), (0.45, 1), (-0.45, 1))
    pen.box(scaled(colour, 0.6), -0.68, -0.85, 0.68, -0.62)


def draw_lamp(pen: Pen, dice: Dice) -> None:
    pen.line(dice.shade(GREY), 0.14, (0, 1), (0, -2.4), (0.7, -2.6))
    pen.ellipse(YELLOW, 0.75, -2.55, 0.2)


def draw_board(pen: Pen, dice: Dice) -> None:
    colour = dice.shade(dice.pick(PAINT), 40)
    pen.line(GREY, 0.14, (0, 1), (0, 0))
    pen.box(colour, -1.1, -1, 1.1, 0.2)
    pen.box(scaled(colour, 1.5), -0.8, -0.7, 0.5, -0.5)
    pen.box(scaled(colour, 1.5), -0.8, -0.3, 0.8, -0.1)


def draw_back_of_a_sign(pen: Pen, dice: Dice) -> None:
    pen.line(GREY, 0.14, (0, 1), (0, -0.5))
    pen.ellipse(dice.shade((160, 162, 166)), 0, -0.8, 0.7)


def draw_warning(pen: Pen, dice: Dice) -> None:
    pen.line(GREY, 0.14, (0, 1), (0, 0))
    pen.polygon(dice.shade(RED), (-0.9, 0.2), (0, -1.4), (0.9, 0.2))
    pen.polygon(WHITE, (-0.5, 0), (0, -0.9), (0.5, 0))
    pen.line(BLACK, 0.16, (0, -0.6), (0, -0.1))


def draw_bush(pen: Pen, dice: Dice) -> None:
    for _ in range(4):
        leaf = dice.shade(dice.pick(GREENS), 20)
        pen.ellipse(leaf, dice.between(-0.7, 0.7), dice.between(0.2, 0.8), dice.between(0.35, 0.6))


_OVAL = ((0.0, -1.0), (0.75, -0.75), (1.0, 0.0), (0.75, 0.75), (0.0, 1.0), (-0.75, 0.75), (-1.0, 0.0), (-0.75, -0.75))
_ZERO = (*_OVAL, _OVAL[0])
_THREE = (
    (-0.9, -0.8),
    (0.0, -1.0),
    (0.8, -0.6),
    (0.6, -0.1),
    (-0.2, 0.0),
    (0.8, 0.2),
    (0.8, 0.8),
    (0.0, 1.0),
    (-0.9, 0.8),
)
_SIX = ((0.8, -0.9), (-0.1, -1.0), (-0.8, -0.3), (-0.9, 0.5), (0.0, 1.0), (0.9, 0.5), (0.3, -0.1), (-0.8, 0.2))

SIGNS: dict[str, Artist] = {
    "stop": draw_stop,
    "yield": draw_yield,
    "speed-30": _speed(_THREE, _ZERO),
    "speed-60": _speed(_SIX, _ZERO),
    "no-entry": draw_no_entry,
    "priority": draw_priority,
    "pedestrian-crossing": draw_pedestrian_crossing,
    "turn-left": _turn(-1),
    "turn-right": _turn(1),
    "roundabout": draw_roundabout,
}
STREET_FURNITURE: tuple[Artist, ...] = (
    draw_cone,
    draw_bin,
    draw_lamp,
    draw_board,
    draw_back_of_a_sign,
    draw_warning,
    draw_bush,
)
"""Things without a label, some with the colours and outlines of signs and vehicles."""
