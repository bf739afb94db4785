"""File locks: one process at a time writes a file."""

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

    The lock is a hidden file in the folder of ``path`` and is removed when nobody holds it. The kernel releases it
    when its process dies.

    Raises:
        EdgetlError: the directory cannot be written, or something else has the lock's name.
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
            lock.unlink()  # before it is released: a process that waits sees that the name is another file now
        os.close(descriptor)


def open_lock(lock: Path, content: re.Pattern[bytes] = _EMPTY) -> int:
    """Open a lock file for reading and appending, and make it where there is none.

    Args:
        content: matches the first 64 bytes of such a lock.

    Raises:
        EdgetlError: what lies there is no lock of edgetl's: a link, a pipe, or a file of another program.
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
    # A file with a second name may be anyone's: what is written to it would appear there.
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1 and content.fullmatch(os.pread(descriptor, 64, 0)):
        return descriptor
    os.close(descriptor)
    raise foreign


def _acquire(lock: Path) -> int:
    while True:
        descriptor = open_lock(lock)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The holder before may have removed the file: then the lock is of no use, and the next one is tried.
            with suppress(FileNotFoundError):
                named, held = lock.lstat(), os.fstat(descriptor)
                if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
