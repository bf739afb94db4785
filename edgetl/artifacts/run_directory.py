"""A run directory: where each stage's artifacts lie, what they were made from, and who is at work in it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
_LOCK = re.compile(rb"((edgetl )?\d+\n.*)?", re.DOTALL)
"""The lock of a run directory. It is empty while it is made, and was a number alone in earlier run directories."""


class StageRecord(Artifact):
    """What a finished stage was asked and what it wrote: written last, so its presence means the stage is whole.

    ``settings`` are the parts of the study that it depends on, ``inputs`` what else it depends on (files, the
    machine), ``parents`` the digests of the records it read, ``outputs`` the sha256 of every file it wrote, relative
    to the run directory.
    """

    schema_version: Literal[2] = 2
    stage: str
    settings: dict[str, Any]
    inputs: dict[str, Any]
    parents: dict[str, str]
    outputs: dict[str, str]

    @property
    def digest(self) -> str:
        """Identifies what was made, wherever it was copied to."""
        return sha256_json([self.stage, self.parents, self.outputs])


@dataclass(frozen=True)
class RunDirectory:
    """The directory that a study writes into."""

    path: Path

    @property
    def index(self) -> Path:
        return self.path / "data" / "index.json"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def shortlist(self) -> Path:
        return self.bundle / "shortlist.json"

    @property
    def graphs(self) -> Path:
        return self.path / "graphs"

    @property
    def accuracy_control(self) -> Path:
        return self.graphs / "accuracy_control.json"

    @property
    def engines(self) -> Path:
        return self.path / "engines"

    @property
    def measurements(self) -> Path:
        return self.path / "measurements"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def record_path(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def record(self, stage: str) -> StageRecord | None:
        """The record of a finished stage, or None where it has not finished or its files are gone."""
        try:
            record = read_json(self.record_path(stage), StageRecord)
        except EdgetlError:  # missing, damaged or of another version: the stage has to be done
            return None
        return record if all((self.path / name).is_file() for name in record.outputs) else None

    def damaged(self, record: StageRecord) -> str | None:
        """The first output whose content is no longer what the stage wrote."""
        return next((name for name, digest in record.outputs.items() if sha256_file(self.path / name) != digest), None)

    def finish(self, record: StageRecord, outputs: Sequence[Path]) -> StageRecord:
        """Write down that a stage is whole, with the digests of its files."""
        digests = {self.relative(path): sha256_file(path) for path in sorted(outputs)}
        finished = record.model_copy(update={"outputs": digests})
        write_json(self.record_path(record.stage), finished)
        return finished

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, keep other edgetl processes out, and clear away what a killed one left half-written.

        The lock file names its holder, and below it, one JSON string a line, every temporary file that the holder was
        about to make: those alone are cleared away.

        Raises:
            EdgetlError: the directory cannot be written, holds other things, or another process is at work in it.
        """
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

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def _refuse_foreign(self) -> None:
        """Refuse a directory that is neither new nor empty nor a run directory: what is in it belongs to others."""
        there = sorted(self.path.iterdir()) if self.path.exists() else []
        if set(there) <= {self._lock} or self._has_mark(there):
            return
        first = min((path.name for path in there), key=lambda name: (name.startswith("."), name))
        raise EdgetlError(
            f"{self.path} holds other things ({first}) and is no run directory of edgetl; "
            "choose a new or an empty directory with -o"
        )

    def _has_mark(self, there: Sequence[Path]) -> bool:
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
        """Remove temporary files and folders. Anyone may have written the names: others than such are passed over."""
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
