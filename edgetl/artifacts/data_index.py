"""The data index: which image belongs to which split, by content."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from edgetl.artifacts.files import Artifact, sha256_json

ImageT = TypeVar("ImageT", bound=Artifact)
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class Sample(Artifact):
    """One image. ``path`` is relative to the data root, or to the run directory for a generated image."""

    path: str
    label: str
    sha256: str


class BrokenFile(Artifact):
    """A file that was left out, and why."""

    path: str
    reason: str


class SplitImages(Artifact, Generic[ImageT]):
    """Every usable image of a study, split without leaks, and the files that were left out."""

    schema_version: Literal[1] = 1
    generated: bool
    labels: tuple[str, ...]
    train: tuple[ImageT, ...]
    val: tuple[ImageT, ...]
    test: tuple[ImageT, ...]
    broken: tuple[BrokenFile, ...] = ()
    notes: tuple[str, ...] = ()

    def split(self, name: SplitName) -> tuple[ImageT, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[name]


class DataIndex(SplitImages[Sample]):
    """The data index of a classification study."""

    def digest(self, *names: SplitName) -> str:
        """Digest over content and label of the named splits, in order; paths do not count."""
        return sha256_json([[[s.sha256, s.label] for s in self.split(name)] for name in names])
