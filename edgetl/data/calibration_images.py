"""Draws the images that INT8 ranges are calibrated on, from an index, a folder or a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import CalibrationRecipe
from edgetl.data.images import BrokenImageError, check, read
from edgetl.data.stream import ImageFileT
from edgetl.errors import EdgetlError


def draw(files: Sequence[ImageFileT], recipe: CalibrationRecipe) -> tuple[ImageFileT, ...]:
    """As many images as the recipe asks for, or all where there are fewer; the order of ``files`` does not matter."""
    ordered = sorted(files, key=lambda file: (file.sha256, file.path))
    chosen = np.random.default_rng(recipe.seed).permutation(len(ordered))[: recipe.images]
    # In order of their contents: float sums over images, and so tables, are the same on every machine.
    return tuple(ordered[position] for position in sorted(chosen))


def image_samples(source: Path) -> tuple[tuple[Sample, ...], Path]:
    """The images of a folder, or of a text file with one path on each line, and the folder that their paths are
    relative to.

    Raises:
        EdgetlError: there is no such folder or list, or no image in it; a listed file is missing or no image.
    """
    if source.suffix == ".txt" and source.is_file():
        return listed_samples(source), source.parent
    return folder_samples(source), source


def listed_samples(listing: Path) -> tuple[Sample, ...]:
    """The images that a text file lists, relative to its folder. Empty lines and lines that begin with # are
    skipped.
    """
    try:
        lines = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise EdgetlError(f"{listing} cannot be read as a list of images: {error}") from error
    samples: dict[str, Sample] = {}
    for number, name in enumerate(lines, 1):
        if not name or name.startswith("#"):
            continue
        if name in samples:
            raise EdgetlError(f"{listing}, line {number}: {name} is listed twice; list each image once")
        try:
            content = read(listing.parent / name)
            check(content)
        except (OSError, BrokenImageError) as error:
            reason = error.reason if isinstance(error, BrokenImageError) else error.strerror
            raise EdgetlError(f"{listing}, line {number}: {name} is no readable image ({reason})") from None
        samples[name] = Sample(path=name, label="", sha256=sha256_bytes(content))
    if not samples:
        raise EdgetlError(f"{listing} lists no image; expected one path on each line")
    return tuple(samples.values())


def folder_samples(folder: Path) -> tuple[Sample, ...]:
    """All images below a folder, unlabelled. Other files (a licence, a list) are skipped.

    Raises:
        EdgetlError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise EdgetlError(f"{folder} is not a folder; give one with images like those the model will see")
    samples = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            content = read(path)
            check(content)
        except BrokenImageError:
            continue
        samples.append(Sample(path=path.relative_to(folder).as_posix(), label="", sha256=sha256_bytes(content)))
    if not samples:
        raise EdgetlError(f"{folder} holds no readable image; expected JPEG, PNG, BMP, GIF, TIFF, WebP or PPM files")
    return tuple(samples)
