"""Reading files, and writing them whole or not at all: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from edgetl.errors import EdgetlError
from edgetl.record import Record

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial", re.DOTALL)
_LONGEST_STEM = 150  # of the 255 bytes of a file name; prefixes, suffixes and a temporary name's need the rest

# A list, not a context variable: threads write files too.
_told: list[Callable[[Path], object]] = []


class Artifact(Record):
    """A frozen record that is stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_Artifact = TypeVar("_Artifact", bound=Artifact)


@contextmanager
def telling(listener: Callable[[Path], object]) -> Iterator[None]:
    """For the block, call a listener with every temporary file or folder before it is made."""
    _told.append(listener)
    try:
        yield
    finally:
        _told.remove(listener)


def temporary(path: Path) -> Path:
    """A hidden name in the folder of ``path``, for what is to become it."""
    # Random: on a shared disk nobody can guess the name and put a link there.
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    for listener in _told:
        listener(partial)
    return partial


def is_temporary(name: str) -> bool:
    """Whether `temporary` may have given the name."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the block a temporary path, and rename it to ``path`` when the block ends well.

    A reader sees the old file or the new one, never a part; a block that fails leaves nothing behind.

    Raises:
        EdgetlError: the directory cannot be written, the disk is full, or ``path`` is a folder, a device or a pipe.
    """
    try:
        if path.exists() and not path.is_file():  # a rename would put a file in place of /dev/null
            raise OSError(errno.EEXIST, "Is a directory" if path.is_dir() else "Is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield partial
        _sync(partial)  # before the rename: after a power cut, the name must not point at an empty file
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        _discard(partial)
        raise cannot_write(path, error) from error
    except BaseException:
        _discard(partial)
        raise


def _discard(partial: Path) -> None:
    # On a read-only disk, or below a file, even removing what does not exist fails.
    with suppress(OSError):
        partial.unlink()


def file_stem(name: str) -> str:
    """A name shortened for file names, which hold 255 bytes: a long one's beginning and a digest."""
    encoded = name.encode()
    if len(encoded) <= _LONGEST_STEM:
        return name
    return f"{encoded[:_LONGEST_STEM].decode(errors='ignore')}~{sha256_bytes(encoded)[:12]}"


def cannot_write(path: Path, error: OSError) -> EdgetlError:
    """The error for a full disk, a read-only folder and the like."""
    return EdgetlError(f"cannot write {path}: {error.strerror or error}; free space or choose another directory")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, content: Artifact | dict[str, Any]) -> None:
    value = content.model_dump(mode="json") if isinstance(content, Artifact) else content
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        EdgetlError: the file is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise EdgetlError(f"{path} does not exist") from None
    except OSError as error:
        raise EdgetlError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path, kind: type[_Artifact]) -> _Artifact:
    """Read an artifact.

    Raises:
        EdgetlError: the file is missing, is no JSON or has another shape or schema version.
    """
    content = read_bytes(path)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EdgetlError(
            f"{path} is not a valid {kind.__name__}: {where}: {first['msg']}; it was damaged or written by "
            "another version of edgetl: run the stage that makes it again"
        ) from None


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: object) -> str:
    """Digest of a value's canonical JSON (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
