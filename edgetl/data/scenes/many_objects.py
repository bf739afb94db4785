"""Synthetic road scenes with several objects and their boxes: the data of a detector that is trained anywhere.

Objects of the labels stand about at all distances, before and behind each other, in the settings and the light of
`edgetl.data.scenes.one_object`. The box of an object is the tight one around what can be seen of it, without shadow or
pole. The same labels and seed give the same pixels and boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from edgetl.arrays import BoolArray
from edgetl.data.boxes.box_listing import AnnotatedImage, RawBox
from edgetl.data.scenes.background import backdrop, distractor, occluder, photograph
from edgetl.data.scenes.one_object import SUPERSAMPLING, artist_of, scene_seed
from edgetl.data.scenes.pen import Dice, Marks, Pen, Pose
from edgetl.data.scenes.signs import SIGNS

SIZE = 160
"""Width and height of a scene in pixels."""

LEAST_VISIBLE = 0.4
"""Objects of which a smaller share can be seen than this are ignored."""

_MOST_OBJECTS = 6
_TRIES = 12
_CROWDED = 0.4
_SMALLEST = 4.0
_SMALL = {"dog": 0.7, "cat": 0.6, "child": 0.75, **dict.fromkeys(SIGNS, 0.62)}
"""The sizes of objects relative to vehicles: not true to life, or a detector could not tell them apart."""


def render_boxed_scenes(directory: Path, labels: Sequence[str], scenes: int, seed: int) -> Iterator[AnnotatedImage]:
    """Write scenes as ``00000.png`` and so on below ``directory``.

    Yields:
        Every scene, its path relative to ``directory``.

    Raises:
        EdgetlError: a label is unknown.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(scenes):
        path = f"{number:05d}.png"
        picture, marks = render_boxed_scene(labels, scene_seed("boxes", seed, number))
        picture.save(directory / path, compress_level=1)
        named = tuple(RawBox(f"{path}: {mark.where}", mark.label, mark.corners, mark.ignored) for mark in marks)
        yield AnnotatedImage(path, path, named, (SIZE, SIZE))


def render_boxed_scene(labels: Sequence[str], seed: int) -> tuple[Image.Image, tuple[RawBox, ...]]:
    """One RGB scene of `SIZE` x `SIZE` pixels with up to six objects of the labels, and their boxes.

    Raises:
        EdgetlError: a label is unknown.
    """
    for label in labels:
        artist_of(label)
    dice = Dice(f"{'/'.join(labels)}/{seed}")
    side = SIZE * SUPERSAMPLING
    scene, numbers = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    canvas, marks = ImageDraw.Draw(scene), ImageDraw.Draw(numbers)
    horizon = dice.between(0.2, 0.45) * side
    backdrop(canvas, dice, side, horizon)
    for _ in range(dice.pick((0, 1, 1, 2, 3))):
        distractor(canvas, dice, side, horizon)
    objects = _placed(labels, dice, side, horizon)
    for number, (label, pose) in enumerate(objects, 1):
        # Dice of its own: the object is drawn again to see how much of it there would be.
        artist_of(label)(Pen(canvas, pose, Marks(marks, number)), Dice(f"{seed}/{number}"))
        if dice.chance(0.12):
            occluder(canvas, dice, pose, Marks(marks))
    picture = photograph(scene.reduce(SUPERSAMPLING), dice)
    found = np.asarray(numbers)
    every = (_mark(found == number, number, *thing, seed) for number, thing in enumerate(objects, 1))
    return picture, tuple(mark for mark in every if mark is not None)


def _placed(labels: Sequence[str], dice: Dice, side: int, horizon: float) -> list[tuple[str, Pose]]:
    """Labels and poses of the objects, the farthest first; fewer of them where there is no room left."""
    placed: list[tuple[float, str, Pose]] = []
    for _ in range(dice.pick(range(1, _MOST_OBJECTS + 1))):
        label = dice.pick(labels)
        for _ in range(_TRIES):
            depth = dice.between(0.0, 1.0)
            # On the ground, the nearer the lower and the larger: the depth is 0 far away and 1 in front.
            half = (0.1 + 0.12 * depth) * _SMALL.get(label, 1.0) * side
            ground = horizon + (side - horizon) * (0.25 + 0.7 * depth)
            height = 2.6 if label in SIGNS else 0.95  # of the centre, in half-sizes: signs are on poles
            pose = Pose(
                x=dice.between(0.4 * half, side - 0.4 * half),
                y=max(ground - height * half, 0.7 * half),
                half=half,
                turn=dice.between(-0.1, 0.1),
                tilt=(dice.between(-0.18, 0.18), dice.between(-0.1, 0.1)),
                mirrored=label not in SIGNS and dice.chance(0.5),
                squeeze=dice.between(0.78, 1.0),
            )
            if not any(_covered(pose, other) > _CROWDED for _, _, other in placed):
                placed.append((depth, label, pose))
                break
    return [(label, pose) for _, label, pose in sorted(placed, key=lambda thing: thing[0])]


def _covered(a: Pose, b: Pose) -> float:
    """The share of the smaller one that the two have in common, both taken as squares."""
    across, down = (min(p + a.half, q + b.half) - max(p - a.half, q - b.half) for p, q in ((a.x, b.x), (a.y, b.y)))
    return max(across, 0.0) * max(down, 0.0) / (2 * min(a.half, b.half)) ** 2


def _mark(seen: BoolArray, number: int, label: str, pose: Pose, seed: int) -> RawBox | None:
    """The box around the visible part of an object; None where it is hidden altogether."""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    left, top, right, bottom = (
        int(edge) / SUPERSAMPLING for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    )
    small = min(right - left, bottom - top) < _SMALLEST
    # Drawn again alone, with the same dice, the object shows how many pixels it has where nothing hides it.
    side = round(4 * pose.half)
    alone = Image.new("L", (side, side))
    middle = replace(pose, x=side / 2, y=side / 2)
    canvas = ImageDraw.Draw(Image.new("RGB", (side, side)))
    artist_of(label)(Pen(canvas, middle, Marks(ImageDraw.Draw(alone), 1)), Dice(f"{seed}/{number}"))
    hidden = seen.sum() < LEAST_VISIBLE * int(np.asarray(alone).sum())
    return RawBox(f"object {number}", label, (left, top, right, bottom), ignored=bool(small or hidden))
