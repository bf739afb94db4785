"""Vehicles, people and animals of the synthetic scenes: one function per label, drawn with polygons."""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.data.scenes.pen import (
    BLACK,
    CLOTHES,
    GLASS,
    GREY,
    PAINT,
    RED,
    RUBBER,
    WHITE,
    YELLOW,
    Artist,
    Colour,
    Dice,
    Pen,
    scaled,
)

_SKIN = ((236, 194, 164), (198, 150, 112), (142, 96, 66), (92, 60, 42))


def _shadow(pen: Pen, ground: float, reach: float = 0.85) -> None:
    pen.unmarked().ellipse((52, 52, 54), 0.0, ground, reach, 0.1)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.ellipse(RUBBER, x, y, radius)
    pen.ellipse(GREY, x, y, radius * 0.5)


def draw_car(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.55)
    paint, roof, nose = dice.shade(dice.pick(PAINT)), dice.between(-0.5, -0.36), dice.between(-0.14, 0.0)
    back = dice.pick((-0.95, -0.7, -0.5))
    body = ((-1, 0.34), (-1, -0.04), (-0.98, -0.1), (back + 0.12, roof), (0.22, roof), (0.55, nose - 0.06))
    pen.polygon(paint, *body, (0.95, nose + 0.08), (1, 0.34))
    pen.polygon(GLASS, (back + 0.04, -0.1), (back + 0.2, roof + 0.07), (-0.12, roof + 0.07), (-0.12, -0.1))
    pen.polygon(GLASS, (-0.04, -0.1), (-0.04, roof + 0.07), (0.18, roof + 0.07), (0.42, -0.1))
    pen.box(YELLOW, 0.88, 0.02, 0.99, 0.12)
    pen.box(RED, -1, 0.02, -0.92, 0.12)
    _wheel(pen, -0.56, 0.34, 0.21)
    _wheel(pen, 0.58, 0.34, 0.21)


def draw_truck(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.6)
    cab, load, top = dice.shade(dice.pick(PAINT)), dice.shade(dice.pick(PAINT), 40), dice.between(-0.8, -0.55)
    pen.box(RUBBER, -1, 0.26, 0.95, 0.42)
    pen.box(load, -1, top, 0.4, 0.3)
    if dice.chance(0.5):
        pen.box(dice.shade(WHITE), -0.8, top + 0.25, 0.2, top + 0.45)
    pen.polygon(cab, (0.46, 0.4), (0.46, -0.36), (0.8, -0.36), (0.98, 0.04), (1, 0.4))
    pen.polygon(GLASS, (0.58, 0.0), (0.58, -0.26), (0.76, -0.26), (0.88, 0.0))
    for x in (-0.75, -0.4, 0.72):
        _wheel(pen, x, 0.42, 0.19)


def draw_bus(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.56)
    paint, band = dice.shade(dice.pick(PAINT)), dice.shade(dice.pick(PAINT))
    roof = dice.between(-0.62, -0.45)
    pen.box(paint, -1, roof, 1, 0.4)
    pen.box(band, -1, 0.1, 1, 0.22)
    panes = dice.pick((4, 5, 6))
    step = 1.56 / panes
    for k in range(panes):
        pen.box(GLASS, -0.94 + k * step, roof + 0.12, -0.94 + (k + 0.82) * step, 0.02)
    pen.box(GLASS, 0.68, roof + 0.12, 0.86, 0.36)
    pen.box(GLASS, 0.91, roof + 0.12, 1, 0.04)
    _wheel(pen, -0.6, 0.4, 0.17)
    _wheel(pen, 0.46, 0.4, 0.17)


def draw_motorcycle(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.74)
    paint = dice.shade(dice.pick(PAINT))
    for x in (-0.64, 0.64):
        pen.ellipse(RUBBER, x, 0.4, 0.34)
        pen.ellipse(GREY, x, 0.4, 0.19)
    pen.line(GREY, 0.09, (0.64, 0.4), (0.36, -0.24), (0.2, -0.4))
    pen.polygon(RUBBER, (-0.34, 0.45), (-0.2, 0.02), (0.3, 0.02), (0.3, 0.45))
    pen.line(GREY, 0.1, (-0.9, 0.5), (-0.1, 0.46))
    pen.polygon(paint, (-0.16, 0.06), (-0.1, -0.22), (0.3, -0.26), (0.42, -0.06), (0.24, 0.08))
    pen.polygon(RUBBER, (-0.86, -0.16), (-0.2, -0.2), (-0.12, -0.02), (-0.7, 0.02))
    pen.ellipse(YELLOW, 0.47, -0.22, 0.11)
    if dice.chance(0.4):
        _rider(pen, dice, helmet=True)


def draw_bicycle(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.76)
    paint = dice.shade(dice.pick(PAINT))
    for x in (-0.58, 0.58):
        pen.ring(RUBBER, 0.07, x, 0.38, 0.38)
    frame = ((-0.58, 0.38), (-0.02, 0.38), (0.38, -0.14), (-0.26, -0.12), (-0.02, 0.38))
    pen.line(paint, 0.08, *frame)
    pen.line(paint, 0.08, (-0.58, 0.38), (-0.26, -0.12), (-0.3, -0.24))
    pen.line(paint, 0.08, (0.58, 0.38), (0.34, -0.3))
    pen.line(RUBBER, 0.08, (0.22, -0.32), (0.36, -0.34), (0.44, -0.24))
    pen.line(RUBBER, 0.11, (-0.44, -0.26), (-0.16, -0.26))
    if dice.chance(0.4):
        _rider(pen, dice, helmet=False)


def _rider(pen: Pen, dice: Dice, helmet: bool) -> None:
    clothes, skin = dice.shade(dice.pick(CLOTHES)), dice.pick(_SKIN)
    pen.line(dice.shade((52, 56, 80)), 0.16, (-0.3, -0.24), (0.08, 0.0), (0.0, 0.4))
    pen.line(clothes, 0.24, (-0.3, -0.26), (-0.08, -0.66))
    pen.line(clothes, 0.12, (-0.06, -0.6), (0.28, -0.34))
    pen.ellipse(dice.shade(dice.pick(PAINT)) if helmet else skin, 0.0, -0.86, 0.17 if helmet else 0.13)


def _walker(pen: Pen, dice: Dice, head: float, trunk: float) -> None:
    """Draw a person from -1 to 1; ``head`` is the head's radius, ``trunk`` where the legs begin."""
    _shadow(pen, 0.95, 0.4)
    clothes, legs, skin = dice.shade(dice.pick(CLOTHES)), dice.shade(dice.pick(CLOTHES)), dice.pick(_SKIN)
    neck, stride, swing = -1 + 2 * head, dice.between(0.05, 0.34), dice.between(-0.3, 0.3)
    wide = head * dice.between(1.0, 1.35)
    for side in (-1, 1):
        pen.line(legs, wide * 0.8, (side * wide * 0.35, trunk - 0.06), (side * stride, 0.94))
        pen.line(RUBBER, 0.09, (side * stride - 0.02, 0.95), (side * stride + 0.12, 0.95))
        pen.line(skin, wide * 0.45, (side * wide, neck + 0.12), (side * (wide + swing), trunk))
        pen.line(clothes, wide * 0.6, (side * wide * 0.9, neck + 0.1), (side * (wide + swing / 2), (trunk + neck) / 2))
    pen.polygon(
        clothes, (-wide, neck + 0.04), (wide, neck + 0.04), (wide * 0.85, trunk + 0.06), (-wide * 0.85, trunk + 0.06)
    )
    pen.ellipse(skin, 0, -1 + head, head * 0.86, head)
    pen.ellipse(
        dice.pick(((40, 28, 22), (90, 60, 30), (196, 160, 90), (60, 60, 62))),
        -0.02,
        -1 + head * 0.6,
        head * 0.9,
        head * 0.65,
    )


def draw_pedestrian(pen: Pen, dice: Dice) -> None:
    _walker(pen, dice, head=0.15, trunk=0.02)


def draw_child(pen: Pen, dice: Dice) -> None:
    if dice.chance(0.5):
        pen.box(dice.shade(dice.pick(PAINT)), -0.46, -0.36, -0.1, 0.2)
    _walker(pen, dice, head=0.27, trunk=0.28)


def _legs(pen: Pen, dice: Dice, colour: Colour, xs: Sequence[float], top: float, width: float) -> None:
    for x in xs:
        step = dice.between(-0.12, 0.12)
        pen.line(colour, width, (x, top), (x + step, (top + 0.92) / 2), (x + step / 2, 0.92))


def draw_dog(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.92, 0.6)
    coat = dice.shade(dice.pick(((120, 78, 44), (196, 156, 98), (52, 44, 40), (206, 200, 190))), 20)
    dark = scaled(coat, 0.6)
    _legs(pen, dice, coat, (-0.62, -0.46, 0.26, 0.42), 0.3, 0.17)
    pen.ellipse(coat, -0.08, 0.16, 0.66, 0.29)
    pen.line(coat, 0.13, (-0.66, 0.06), (-0.9, dice.between(-0.5, -0.1)))
    pen.line(coat, 0.34, (0.42, 0.08), (0.6, -0.3))
    pen.ellipse(coat, 0.6, -0.4, 0.27, 0.23)
    pen.polygon(coat, (0.62, -0.46), (1.0, -0.4), (1.0, -0.24), (0.6, -0.2))
    pen.ellipse(BLACK, 0.98, -0.36, 0.07)
    pen.ellipse(dark, 0.43, -0.34, 0.11, 0.24)
    pen.ellipse(BLACK, 0.68, -0.46, 0.05)


def draw_cat(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.92, 0.6)
    coat = dice.shade(dice.pick(((210, 130, 60), (70, 68, 70), (150, 146, 140), (226, 218, 206))), 20)
    if dice.chance(0.5):
        pen.line(coat, 0.15, (-0.3, 0.8), (-0.75, 0.7), (-0.85, 0.3), (-0.65, 0.0))
        pen.ellipse(coat, 0, 0.5, 0.46, 0.46)
        pen.ellipse(coat, 0.04, 0.05, 0.32, 0.45)
        _cat_head(pen, coat, 0.08, -0.45)
        return
    pen.line(coat, 0.13, (-0.55, 0.2), (-0.85, -0.05), (-0.78, -0.5), (-0.95, -0.75))
    _legs(pen, dice, coat, (-0.5, -0.36, 0.3, 0.44), 0.35, 0.13)
    pen.ellipse(coat, -0.05, 0.26, 0.6, 0.22)
    _cat_head(pen, coat, 0.55, -0.06)


def _cat_head(pen: Pen, coat: Colour, x: float, y: float) -> None:
    pen.ellipse(coat, x, y, 0.34, 0.29)
    for side in (-1, 1):
        pen.polygon(coat, (x + side * 0.33, y - 0.02), (x + side * 0.31, y - 0.5), (x + side * 0.04, y - 0.22))
        pen.ellipse((150, 190, 60), x + side * 0.14, y - 0.04, 0.07)
    pen.polygon((206, 120, 120), (x - 0.05, y + 0.08), (x + 0.05, y + 0.08), (x, y + 0.14))


def draw_deer(pen: Pen, dice: Dice) -> None:
    _shadow(pen, 0.92, 0.6)
    coat = dice.shade((150, 98, 56), 24)
    _legs(pen, dice, scaled(coat, 0.8), (-0.56, -0.42, 0.16, 0.3), 0.16, 0.09)
    pen.ellipse(coat, -0.12, 0.06, 0.56, 0.24)
    pen.ellipse(WHITE, -0.66, -0.04, 0.1, 0.13)
    pen.polygon(coat, (0.1, -0.08), (0.36, 0.18), (0.66, -0.4), (0.44, -0.5))
    pen.polygon(coat, (0.42, -0.52), (0.62, -0.58), (0.92, -0.4), (0.88, -0.3), (0.6, -0.32))
    pen.polygon(coat, (0.46, -0.5), (0.28, -0.58), (0.4, -0.42))
    pen.ellipse(BLACK, 0.62, -0.48, 0.04)
    for x, lean in ((0.5, -0.2), (0.58, 0.12)):
        pen.line((206, 186, 150), 0.06, (x, -0.55), (x + lean, -0.8), (x + lean * 0.6, -1.0))
        pen.line((206, 186, 150), 0.06, (x + lean, -0.8), (x + lean + 0.16, -0.94))


VEHICLES: dict[str, Artist] = {
    "car": draw_car,
    "truck": draw_truck,
    "bus": draw_bus,
    "motorcycle": draw_motorcycle,
    "bicycle": draw_bicycle,
}
PEOPLE_AND_ANIMALS: dict[str, Artist] = {
    "pedestrian": draw_pedestrian,
    "child": draw_child,
    "dog": draw_dog,
    "cat": draw_cat,
    "deer": draw_deer,
}
