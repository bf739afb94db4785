"""One process at a time at a file that several may want to write."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgetl.artifacts.files import cannot_write


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of ``path``, and hold it for the block.

    The lock is a hidden file beside ``path``, gone when nobody holds it. A process that dies lets go of it.

    Raises:
        EdgetlError: the directory cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(lock)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # before it is let go of: whoever waits sees that the name is another file now
        os.close(descriptor)


def _acquire(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(lock, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(lock: Path, descriptor: int) -> bool:
    """Whether the file that was locked is still the one of that name."""
    try:
        named = lock.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
