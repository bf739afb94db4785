"""What a file shows without being decoded: that it is an image, its content's digest, its size."""

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
"""Files read at once: enough to keep a disk and two cores busy."""


class FileFacts(NamedTuple):
    """Of a file that looks whole: its digest, and width and height of the upright image."""

    sha256: str
    size: Size


def examine(root: Path, paths: Sequence[str]) -> list[FileFacts | BrokenFile]:
    """Read every file once; of what only decoding tells nothing is said."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="edgetl-index") as pool:
        return list(pool.map(lambda path: _examined(root, path), paths))


def _examined(root: Path, path: str) -> FileFacts | BrokenFile:
    try:
        content = read(root / path)
        return FileFacts(sha256_bytes(content), upright_size(content))
    except BrokenImageError as error:
        return BrokenFile(path=path, reason=error.reason)
    except OSError as error:
        return BrokenFile(path=path, reason=f"cannot be read: {error.strerror}")


def size_and_time(path: Path) -> tuple[int, int]:
    """Of a file, in bytes and nanoseconds: what tells cheaply that it is the same as before."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1  # a link to nowhere: to examine it will call it broken
    return status.st_size, status.st_mtime_ns
