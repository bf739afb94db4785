"""The records that readers of annotated boxes return, before any image is opened."""

from __future__ import annotations

import stat
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgetl.artifacts.box_index import BoxFault
from edgetl.config import DataSettings

_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators
_LONGEST_TEXT = 1000

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom edges."""


@dataclass(frozen=True)
class RawBox:
    """A box as the annotation has it, right or wrong.

    ``corners`` are left, top, right and bottom edges: in pixels, or in shares of the image's sides where its image
    says so. ``where`` names the file, and the line, id or number in it.
    """

    where: str
    label: str
    corners: Corners
    ignored: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """An image as its annotation has it. ``size`` is the annotated width and height, if there is one; with
    ``relative``, boxes are in shares of the image's sides.
    """

    path: str
    where: str
    marks: tuple[RawBox, ...]
    size: tuple[float, float] | None = None
    relative: bool = False


@dataclass(frozen=True)
class BoxListing:
    """The images of every split that the data has, by the split's name.

    Paths are relative to the data root, or to the run directory where ``generated``. ``labels`` are all that the data
    knows, whether a group names them or not.
    """

    parts: dict[str, tuple[AnnotatedImage, ...]]
    labels: tuple[str, ...]
    faults: tuple[BoxFault, ...] = ()
    generated: bool = False


BoxReader = Callable[[DataSettings, Path], BoxListing]
"""Makes a listing of all that the data holds, given a study's section ``data``, or one like it, and the data root."""


class UnreadableError(Exception):
    """The annotation file of one image cannot be read: a fault among others that does not end a study."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of an annotation file.

    Raises:
        UnreadableError: no regular file (reading a pipe would never end), too large, or not readable.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a regular file")
        if status.st_size > most:
            raise UnreadableError(f"too large: {status.st_size} bytes, the limit is {most}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that holds a NUL
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnreadableError(f"cannot be read: {reason or error}") from error


def read_text(path: Path, most: int) -> str:
    """The text of an annotation file.

    Raises:
        UnreadableError: as `read_bounded`, or the file is not UTF-8.
    """
    try:
        return read_bounded(path, most).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableError("not UTF-8") from None


def is_text(value: str) -> bool:
    """Whether a name can stand in messages, files and JSON."""
    return 0 < len(value) <= _LONGEST_TEXT and not any(unicodedata.category(c) in _UNPRINTABLE for c in value)


def shown(faults: Iterable[str], limit: int = 3) -> str:
    """The first faults of a file, and how many more there are."""
    every = list(faults)
    more = f"; and {len(every) - limit} more faults" if len(every) > limit else ""
    return "; ".join(every[:limit]) + more
