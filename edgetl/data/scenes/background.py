"""Backgrounds of synthetic scenes, and the camera that records them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from edgetl.arrays import Float32Array
from edgetl.data.scenes.pen import GREENS, WHITE, Colour, Dice, Marks, Pen, Pose, scaled
from edgetl.data.scenes.signs import STREET_FURNITURE

_WALLS = ((150, 120, 100), (180, 172, 160), (120, 124, 132), (164, 92, 72), (206, 196, 170))
_SKIES = ((132, 178, 224), (170, 192, 212), (190, 194, 198), (96, 146, 206))
_LIGHTS: tuple[tuple[float, Colour], ...] = (
    (1.0, (255, 255, 255)),
    (0.95, (255, 250, 236)),
    (1.1, (250, 252, 255)),
    (0.72, (255, 204, 158)),
    (0.6, (206, 196, 236)),
    (0.5, (180, 192, 255)),
)
"""The brightness and tint of the light: day three times, then dusk, dawn and night."""


def backdrop(canvas: ImageDraw.ImageDraw, dice: Dice, side: int, horizon: float) -> None:
    """Draw sky, ground, buildings, trees and a road."""
    sky, ground = dice.shade(dice.pick(_SKIES)), dice.shade(dice.pick(GREENS))
    bands = 6
    for k in range(bands):
        canvas.rectangle((0, horizon * k / bands, side, horizon * (k + 1) / bands), fill=scaled(sky, 0.86 + 0.05 * k))
    canvas.rectangle((0, horizon, side, side), fill=ground)
    for _ in range(dice.pick((0, 1, 2, 3, 4))):
        dice.pick((draw_building, draw_tree))(
            canvas, dice, dice.between(0, side), horizon, dice.between(0.12, 0.4) * side
        )
    draw_road(canvas, dice, side, horizon)


def draw_road(canvas: ImageDraw.ImageDraw, dice: Dice, side: int, horizon: float) -> None:
    vanish, left, width = dice.between(0, side), dice.between(-0.4, 0.3) * side, dice.between(0.6, 1.3) * side
    asphalt = dice.shade((98, 98, 102), 34)
    canvas.polygon([(vanish - 2, horizon), (vanish + 2, horizon), (left + width, side), (left, side)], fill=asphalt)
    for start in (0.15, 0.45, 0.75):
        ends = []
        for depth in (start, start + 0.18):
            middle = vanish + (left + width / 2 - vanish) * depth
            ends.append((middle, horizon + (side - horizon) * depth))
        canvas.line(ends, fill=dice.shade(WHITE), width=max(1, round(side * 0.02 * (start + 0.3))))


def draw_building(canvas: ImageDraw.ImageDraw, dice: Dice, x: float, ground: float, height: float) -> None:
    wall = dice.shade(dice.pick(_WALLS))
    width, top = height * dice.between(0.5, 1.4), ground - height
    canvas.rectangle((x, top, x + width, ground + 1), fill=wall)
    pane = scaled(wall, 1.25) if dice.chance(0.3) else scaled(wall, 0.6)
    for row in range(3):
        for column in range(3):
            u, v = x + width * (0.12 + 0.3 * column), top + height * (0.1 + 0.3 * row)
            canvas.rectangle((u, v, u + width * 0.14, v + height * 0.15), fill=pane)


def draw_tree(canvas: ImageDraw.ImageDraw, dice: Dice, x: float, ground: float, height: float) -> None:
    leaf = dice.shade(scaled(dice.pick(GREENS), 0.8))
    canvas.line([(x, ground), (x, ground - height * 0.6)], fill=(84, 62, 44), width=max(1, round(height * 0.1)))
    for _ in range(3):
        u, v = x + dice.between(-0.2, 0.2) * height, ground - height * dice.between(0.55, 0.95)
        r = height * dice.between(0.2, 0.34)
        canvas.ellipse((u - r, v - r, u + r, v + r), fill=dice.shade(leaf, 12))


def distractor(canvas: ImageDraw.ImageDraw, dice: Dice, side: int, horizon: float) -> None:
    """Draw street furniture that stands on the ground."""
    half = dice.between(0.07, 0.16) * side
    x, y = dice.between(0, side), dice.between(horizon, side)
    dice.pick(STREET_FURNITURE)(Pen(canvas, Pose(x, y - half, half, turn=dice.between(-0.15, 0.15))), dice)


def occluder(canvas: ImageDraw.ImageDraw, dice: Dice, pose: Pose, marks: Marks | None = None) -> None:
    """Draw something in front that hides up to a third of the object: a post, a low wall or leaves."""
    pen = Pen(canvas, Pose(pose.x, pose.y, pose.half, turn=dice.between(-0.1, 0.1)), marks)
    colour = dice.shade(dice.pick(_WALLS), 40)
    kind = dice.pick(("post", "wall", "leaves"))
    if kind == "post":
        x, width = dice.between(-0.8, 0.8), dice.between(0.08, 0.22)
        pen.box(colour, x - width, -3, x + width, 3)
    elif kind == "wall":
        pen.box(colour, -4, dice.between(0.45, 0.8), 4, 4)
    else:
        x, y = dice.sign() * dice.between(0.5, 0.9), dice.between(-0.8, 0.9)
        for _ in range(4):
            leaf = dice.shade(dice.pick(GREENS), 20)
            pen.ellipse(leaf, x + dice.between(-0.3, 0.3), y + dice.between(-0.3, 0.3), dice.between(0.15, 0.3))


def photograph(scene: Image.Image, dice: Dice) -> Image.Image:
    """The scene as a cheap camera would record it: light, weather, optics and compression."""
    if dice.chance(0.35):
        scene = scene.filter(ImageFilter.BoxBlur(dice.between(0.3, 1.1)))
    brightness, tint = dice.pick(_LIGHTS)
    pixels = _lit(np.asarray(scene, dtype=np.float32), dice, brightness, tint)
    if dice.chance(0.2):
        pixels = _blocky(pixels, dice.between(0.2, 0.6))
    # Not numpy's generator: its streams may change between versions, and scenes must not.
    grain = np.frombuffer(dice.bytes(pixels.size), dtype=np.uint8).reshape(pixels.shape).astype(np.float32) - 127.5
    pixels = pixels + grain * np.float32(dice.between(0.02, 0.22) * min(brightness, 1.0))
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if dice.chance(0.2):
        canvas, size = ImageDraw.Draw(picture), scene.width
        slant, length = dice.between(-0.05, 0.05) * size, dice.pick((0.01, 0.08)) * size  # snow or rain
        colour = dice.shade((196, 200, 208), 30)
        for _ in range(dice.pick((12, 24, 40))):
            x, y = dice.between(0, size), dice.between(0, size)
            canvas.line([(x, y), (x + slant, y + length)], fill=colour, width=1)
    return picture


def _lit(pixels: Float32Array, dice: Dice, brightness: float, tint: Colour) -> Float32Array:
    """The pixels in tinted light that falls off to one side, and at times in fog of its colour."""
    size = pixels.shape[0]
    gain = np.array(tint, dtype=np.float32) / 255 * np.float32(brightness * dice.between(0.8, 1.2))
    ramp = 1 + np.linspace(-0.5, 0.5, size, dtype=np.float32) * np.float32(dice.between(-0.7, 0.7))
    pixels = pixels * gain * (ramp[:, None, None] if dice.chance(0.5) else ramp[None, :, None])
    if dice.chance(0.2):
        fog = np.float32(dice.between(0.2, 0.5))
        pixels = pixels * (1 - fog) + fog * 190 * gain
    return pixels


def _blocky(pixels: Float32Array, strength: float) -> Float32Array:
    """The pixels with blocks of 4 drawn towards their mean colour, as strong chroma compression does."""
    size = pixels.shape[0]
    edges = np.arange(0, size, 4)
    sums = np.add.reduceat(np.add.reduceat(pixels, edges, axis=0), edges, axis=1)
    lengths = np.diff(np.append(edges, size)).astype(np.float32)
    means = sums / (lengths[:, None, None] * lengths[None, :, None])
    spread = means.repeat(4, axis=0)[:size].repeat(4, axis=1)[:, :size]
    mixed: Float32Array = pixels + np.float32(strength) * (spread - pixels)
    return mixed
