"""Checks and walks of paths below the data root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

from edgetl.config import DataSettings
from edgetl.data.listing import listed
from edgetl.errors import EdgetlError, did_you_mean

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo")
)


def named_parts(data: DataSettings) -> dict[str, str]:
    """The splits that the study names a path for."""
    given = {"train": data.train or ".", "val": data.val, "test": data.test}
    parts = {name: part for name, part in given.items() if isinstance(part, str)}
    for name, part in parts.items():
        if leaves(part):
            raise EdgetlError(f"data.{name} {part!r} leaves data.root; give a path below it")
    return parts


def images_folder(data: DataSettings, root: Path, usual: str) -> Path:
    """The folder ``data.images`` below the root, or the format's usual one.

    Raises:
        EdgetlError: there is none, or it is not below the root.
    """
    part = data.images or usual
    if leaves(part):
        raise EdgetlError(f"data.images {part!r} leaves data.root; give a path below it")
    must_exist(root / part, "data.images", "folder")
    return root / part


def must_exist(path: Path, key: str, kind: Literal["folder", "file"]) -> None:
    """Raise EdgetlError where there is no such file or folder, naming the study's key and the nearest name."""
    if path.is_dir() if kind == "folder" else path.is_file():
        return
    # Suggests names from the deepest folder of the path that exists.
    near = next(parent for parent in path.parents if parent.is_dir())
    there = sorted(p.name for p in near.iterdir() if not p.name.startswith(".") and p.is_dir() == (kind == "folder"))
    hint = did_you_mean(path.relative_to(near).parts[0], there)
    raise EdgetlError(f"{key}: there is no {kind} {path}{hint}; {near} has the {kind}s: {listed(there)}")


def leaves(path: str) -> bool:
    """Whether a path names something that is not below the folder it is relative to."""
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return False


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder in a fixed order, without hidden ones. Links are followed, each folder once."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    seen: set[str] = set()
    # By default os.walk skips folders that cannot be read, and images would go missing without a word.
    for directory, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(directory)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
        if real not in seen:
            yield from (Path(directory, name) for name in sorted(names) if not name.startswith("."))
        seen.add(real)


def utf8(path: Path) -> str:
    """A path with forward slashes, as it stands in an index.

    Raises:
        EdgetlError: it cannot be written as UTF-8.
    """
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        raise EdgetlError(f"the name of the file {path.as_posix()!r} is not UTF-8; rename it") from None
    return path.as_posix()
