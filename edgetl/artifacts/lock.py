"""One process at a time at a file that several may want to write."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgetl.artifacts.files import cannot_write
from edgetl.errors import EdgetlError

_EMPTY = re.compile(rb"")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock of ``path``, and hold it for the block.

    The lock is a hidden file beside ``path``, gone when nobody holds it. A process that dies lets go of it.

    Raises:
        EdgetlError: the directory cannot be written, or another thing has the lock's name.
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


def open_lock(lock: Path, content: re.Pattern[bytes] = _EMPTY) -> int:
    """A descriptor, for reading and appending, of a lock file that is made where there is none.

    Nothing is written through a link, into a pipe, or into a file of another program.

    Args:
        content: what such a lock begins with, up to 64 bytes.

    Raises:
        EdgetlError: what lies there is no lock of edgetl's.
        OSError: it cannot be opened.
    """
    foreign = EdgetlError(f"{lock} is no lock of edgetl's; move it away, or choose another -o")
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(lock, flags, 0o644)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:  # a link, a folder, a socket
            raise foreign from None
        raise
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and content.fullmatch(os.pread(descriptor, 64, 0)):
        return descriptor
    os.close(descriptor)
    raise foreign


def _acquire(lock: Path) -> int:
    while True:
        descriptor = open_lock(lock)
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
        named = lock.lstat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
