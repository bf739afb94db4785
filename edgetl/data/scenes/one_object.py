"""Synthetic road scenes: small labelled pictures drawn from a seed, for demonstrations and pretraining.

One object of one of 20 labels stands in a scene with road, verge, sky, buildings and trees, in changing light and
weather, often partly hidden. Things of no label stand about too. The same label, seed and size give the same pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from edgetl.data.scenes.background import backdrop, distractor, occluder, photograph
from edgetl.data.scenes.pen import Artist, Dice, Pen, Pose
from edgetl.data.scenes.shapes import PEOPLE_AND_ANIMALS, VEHICLES
from edgetl.data.scenes.signs import SIGNS
from edgetl.errors import EdgetlError

GROUPS: dict[str, tuple[str, ...]] = {
    "vehicles": tuple(VEHICLES),
    "signs": tuple(SIGNS),
    "people-and-animals": tuple(PEOPLE_AND_ANIMALS),
}
LABELS: tuple[str, ...] = tuple(label for labels in GROUPS.values() for label in labels)

_ARTISTS = {**VEHICLES, **SIGNS, **PEOPLE_AND_ANIMALS}
# Pillow draws without antialiasing: scenes are drawn twice as large and reduced.
SUPERSAMPLING = 2


def scene_seed(stream: str, seed: int, index: int) -> int:
    """The seed of one scene of a set: 64 bits of sha256 over the three.

    Streams keep sets apart: a study renders from ``study``, edgetl/nano was pretrained on ``pretrain``.
    """
    return int.from_bytes(hashlib.sha256(f"{stream}/{seed}/{index}".encode()).digest()[:8], "big")


def render_scenes(directory: Path, labels: Sequence[str], per_label: int, seed: int) -> Iterator[tuple[str, str]]:
    """Write ``per_label`` scenes of every label as ``LABEL/00000.png`` below ``directory``.

    Yields:
        The path relative to ``directory``, with forward slashes, and the label.

    Raises:
        EdgetlError: a label is unknown.
    """
    for label in labels:
        artist_of(label)
    for label in labels:
        (directory / label).mkdir(parents=True, exist_ok=True)
        for index in range(per_label):
            relative = f"{label}/{index:05d}.png"
            render_scene(label, scene_seed("study", seed, index)).save(directory / relative, compress_level=1)
            yield relative, label


def render_scene(label: str, seed: int, size: int = 64) -> Image.Image:
    """One RGB scene of ``size`` x ``size`` pixels with one object of the label.

    Raises:
        EdgetlError: the label is unknown or the size is below 16 pixels.
    """
    artist = artist_of(label)
    if size < 16:
        raise EdgetlError(f"scene size {size} is too small; the smallest is 16 pixels")
    dice = Dice(f"{label}/{seed}")
    side = size * SUPERSAMPLING
    scene = Image.new("RGB", (side, side))
    canvas = ImageDraw.Draw(scene)
    horizon = dice.between(0.25, 0.6) * side
    backdrop(canvas, dice, side, horizon)
    for _ in range(dice.pick((0, 0, 1, 1, 2))):
        distractor(canvas, dice, side, horizon)
    pose = _pose(dice, side, label)
    artist(Pen(canvas, pose), dice)
    if dice.chance(0.35):
        occluder(canvas, dice, pose)
    return photograph(scene.reduce(SUPERSAMPLING), dice)


def artist_of(label: str) -> Artist:
    """The function that draws objects of a label.

    Raises:
        EdgetlError: the label is unknown.
    """
    if label not in _ARTISTS:
        raise EdgetlError(f"no synthetic scene shows {label!r}; the labels are {', '.join(LABELS)}")
    return _ARTISTS[label]


def _pose(dice: Dice, side: int, label: str) -> Pose:
    """A pose somewhere in the picture, 28 to 46 % of it in half-size, at times cut off by its edge."""
    half = dice.between(0.28, 0.46) * side
    reach = max(0.5 * side - 0.85 * half, 0.0)
    return Pose(
        x=side / 2 + dice.between(-reach, reach),
        y=side / 2 + dice.between(-reach, reach),
        half=half,
        turn=dice.between(-0.16, 0.16),
        tilt=(dice.between(-0.22, 0.22), dice.between(-0.15, 0.15)),
        mirrored=label not in SIGNS and dice.chance(0.5),
        squeeze=dice.between(0.72, 1.0),
    )
