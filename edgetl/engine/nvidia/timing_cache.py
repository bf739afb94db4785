"""Kernel times that builders measured, kept from build to build: one file per device and version."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from edgetl.artifacts.files import write_bytes
from edgetl.artifacts.lock import locked


def cache_folder() -> Path:
    """The folder of caches, which may be deleted at any time: in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetl"


def cache_file(folder: Path, *identity: str) -> Path:
    """The path of a cache file, named after what its content is tied to."""
    return folder / ("-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in identity) + ".timing")


def use(config: Any, path: Path) -> None:
    """Let a build begin with the times in a file."""
    # TensorRT itself refuses a file that is damaged or of another machine; then the build begins with none.
    content = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep(config: Any, path: Path) -> None:
    """Write the times that a build measured to a file, joined with those that lie there."""
    learned = config.get_timing_cache()
    if learned is None:
        return
    # Under the lock, so that two builds that end at once keep the times of both.
    with locked(path):
        joined = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        joined.combine(learned, False)
        write_bytes(path, bytes(memoryview(joined.serialize())))
