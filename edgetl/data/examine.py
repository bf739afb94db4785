"""The facts of image files that need no decoding: whether it is an image, its digest, its size."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import sha256_bytes
from edgetl.data.geometry import Size
from edgetl.data.images import BrokenImageError, read, upright_size

_THREADS = 4
"""The number of files read at once: enough to keep a disk and two cores busy."""


class FileFacts(NamedTuple):
    """The digest of a file that looks whole, and width and height of its upright image."""

    sha256: str
    size: Size


def examine(root: Path, paths: Sequence[str]) -> list[FileFacts | BrokenFile]:
    """The facts of every file, in the order of the paths. Files are read once and not decoded."""

    def look(path: str) -> FileFacts | BrokenFile:
        try:
            content = read(root / path)
            return FileFacts(sha256_bytes(content), upright_size(content))
        except BrokenImageError as error:
            return BrokenFile(path=path, reason=error.reason)
        except OSError as error:
            return BrokenFile(path=path, reason=f"cannot be read: {error.strerror}")

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="edgetl-index") as pool:
        return list(pool.map(look, paths))


def size_and_time(path: Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds of a file: equal ones tell cheaply that it is unchanged."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1  # a link to nowhere, which `examine` reports as broken
    return status.st_size, status.st_mtime_ns
