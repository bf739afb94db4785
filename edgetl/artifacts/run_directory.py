"""A run directory: the paths of artifacts, the records of finished stages, and the lock."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from edgetl.artifacts.files import (
    Artifact,
    cannot_write,
    is_temporary,
    read_json,
    sha256_file,
    sha256_json,
    telling,
    write_json,
)
from edgetl.artifacts.lock import open_lock
from edgetl.errors import EdgetlError

_MARKED = re.compile(rb"edgetl \d+\n.*", re.DOTALL)
# The lock is empty while it is made, and was only a number in earlier run directories.
_LOCK = re.compile(rb"((edgetl )?\d+\n.*)?", re.DOTALL)


class StageRecord(Artifact):
    """The record of a finished stage, written last: where it is, the stage is complete.

    ``settings`` are the parts of the study that the stage depends on, ``inputs`` other things (files, the machine),
    ``parents`` the digests of the records that it read, ``outputs`` the sha256 of every file that it wrote, relative to
    the run directory.
    """

    schema_version: Literal[2] = 2
    stage: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    parents: dict[str, str]
    outputs: dict[str, str]

    @property
    def digest(self) -> str:
        """A digest of what was made, independent of where it lies."""
        return sha256_json([self.stage, self.parents, self.outputs])


class RunDirectory:
    """The directory that a study's stages write into, and the paths of what they write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index = path / "data" / "index.json"
        self.cache = path / "cache"
        self.bundle = path / "bundle"
        self.shortlist = self.bundle / "shortlist.json"
        self.graphs = path / "graphs"
        self.accuracy_control = self.graphs / "accuracy_control.json"
        self.engines = path / "engines"
        self.measurements = path / "measurements"
        self.results = path / "results.json"
        self.report = path / "report.html"
        self._lock = path / ".lock"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def record_path(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def record(self, stage: str) -> StageRecord | None:
        """The record of a stage; None where the stage has not finished or its files are gone."""
        try:
            record = read_json(self.record_path(stage), StageRecord)
        except EdgetlError:  # missing, damaged or of another version: the stage has to be done
            return None
        return record if all((self.path / name).is_file() for name in record.outputs) else None

    def damaged(self, record: StageRecord) -> str | None:
        """The first output whose content has changed since the stage wrote it."""
        return next((name for name, digest in record.outputs.items() if sha256_file(self.path / name) != digest), None)

    def finish(self, record: StageRecord, outputs: Sequence[Path]) -> StageRecord:
        """Write the record of a stage, with the digests of its files."""
        digests = {self.relative(path): sha256_file(path) for path in sorted(outputs)}
        finished = record.replaced(outputs=digests)
        write_json(self.record_path(record.stage), finished)
        return finished

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, hold its lock for the block, and remove what a killed process left half-written.

        Raises:
            EdgetlError: the directory cannot be written, holds other things, or another process is at work in it.
        """
        # The lock file names its holder, then, one JSON string a line, every temporary file that the holder was about
        # to make. Only those are removed: a name that merely looks like one may be the user's file.
        try:
            self._refuse_foreign()
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = open_lock(self._lock, _LOCK)
        except OSError as error:
            raise cannot_write(self.path, error) from error

        def lines() -> list[str]:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode("ascii", "replace").splitlines()

        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = next(iter(lines()), "unknown").removeprefix("edgetl ")
                raise EdgetlError(
                    f"another edgetl (process {holder}) is at work in {self.path}; wait for it or choose another -o"
                ) from None
            self._clear(lines()[1:])
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"edgetl {os.getpid()}\n".encode())
            root = self.path.absolute()

            def note(partial: Path) -> None:
                if (absolute := partial.absolute()).is_relative_to(root):
                    os.write(descriptor, json.dumps(str(absolute.relative_to(root))).encode() + b"\n")

            with telling(note):
                yield
        finally:
            os.close(descriptor)

    def _refuse_foreign(self) -> None:
        """Raise EdgetlError for a directory with other things in it: a stage would overwrite files of the user."""
        there = sorted(self.path.iterdir()) if self.path.exists() else []
        if set(there) <= {self._lock} or self._has_mark(there):
            return
        first = min((path.name for path in there), key=lambda name: (name.startswith("."), name))  # hidden files last
        raise EdgetlError(
            f"{self.path} holds other things ({first}) and is no run directory of edgetl; "
            "choose a new or an empty directory with -o"
        )

    def _has_mark(self, there: Sequence[Path]) -> bool:
        """Whether a lock or a stage's record shows that edgetl made the directory."""
        if self._lock in there:
            with suppress(EdgetlError, OSError):
                os.close(open_lock(self._lock, _MARKED))
                return True
        for path in (self.path / "stages").glob("*.json"):  # the lock may be left behind where a run is carried over
            with suppress(EdgetlError):
                read_json(path, StageRecord)
                return True
        return False

    def _clear(self, names: Iterable[str]) -> None:
        """Remove temporary files and folders inside the directory; other names, which anyone may have written, stay."""
        root = self.path.resolve()
        for name in names:
            # It may be no JSON, no string, no path, or a circle of links.
            with suppress(ValueError, TypeError, OSError, RuntimeError):
                partial = root / json.loads(name)
                inside = partial.parent.resolve().is_relative_to(root)
                if not inside or not is_temporary(partial.name) or partial.is_symlink():
                    continue
                if partial.is_dir():
                    shutil.rmtree(partial)
                else:
                    partial.unlink()
