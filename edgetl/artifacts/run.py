"""A run directory: where each stage's artifacts lie, what they were made from, and who is at work in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgetl.artifacts.files import PARTIAL, Artifact, cannot_write, read_json, sha256_file, sha256_json, write_json
from edgetl.errors import EdgetlError


class StageRecord(Artifact):
    """What a finished stage was asked and what it wrote: written last, so its presence means the stage is whole.

    ``settings`` are the parts of the study that it depends on, ``surroundings`` what else it depends on (files, the
    machine), ``parents`` the digests of the records it read, ``outputs`` the sha256 of every file it wrote, relative
    to the run directory.
    """

    schema_version: Literal[1] = 1
    stage: str
    settings: dict[str, Any]
    surroundings: dict[str, Any]
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
    def guard(self) -> Path:
        return self.graphs / "guard.json"

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

        Raises:
            EdgetlError: the directory cannot be written, or another process is at work in it.
        """
        lock = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise EdgetlError(
                    f"another edgetl (process {holder}) is at work in {self.path}; wait for it or choose another -o"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            for leftover in list(self.path.rglob(f".*{PARTIAL}")):
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)
