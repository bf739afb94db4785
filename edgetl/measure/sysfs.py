"""Readers of the kernel's small files about the machine. Any may be missing, odd, or vanish while it is read."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOST_BYTES = 4096
_LONGEST_NAME = 64
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def text(path: Path, most: int = _MOST_BYTES) -> str | None:
    """Return a file's text without the white space and zero bytes around it; None where it has none."""
    # Non-blocking, or a pipe in a file's place would be waited for.
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(file, most).decode("utf-8", "replace").strip().strip("\0") or None
    except OSError:
        return None
    finally:
        os.close(file)


def name(path: Path) -> str | None:
    """Return a file's text if it can be a name: one short line of letters that can be printed."""
    found = text(path)
    return found if found is not None and len(found) <= _LONGEST_NAME and found.isprintable() else None


def number(path: Path) -> int | None:
    """Return the whole number that a file holds and nothing else; None where it holds something else."""
    found = text(path)
    return int(found) if found is not None and _NUMBER.fullmatch(found) else None


def matching_paths(root: Path, pattern: str) -> list[Path]:
    """Return the paths below ``root`` that match, in order; those in folders that cannot be read are left out."""
    try:
        return sorted(root.glob(pattern))
    except OSError:
        return []
