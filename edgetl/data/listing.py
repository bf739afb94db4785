"""The listing that a reader returns, and the message for labels that it does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from edgetl.config import Study
from edgetl.errors import EdgetlError, did_you_mean

Entries = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Listing:
    """The (path, label) of every image that a reader found, paths relative to the data root with forward slashes.

    ``val`` and ``test`` are None where they are to be split off ``train``. Paths of a generated set are relative to
    the run directory.
    """

    train: Entries
    val: Entries | None = None
    test: Entries | None = None
    generated: bool = False
    notes: tuple[str, ...] = ()

    def parts(self) -> dict[str, Entries]:
        """The splits that the data itself has, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: entries for name, entries in named.items() if entries is not None}


Reader = Callable[[Study, Path, Path], Listing]
"""Makes a listing of all that the data holds of (study, data root, run directory), whether a group names it or not."""


def refuse_unknown_labels(study: Study, known: Iterable[str]) -> None:
    """Raise EdgetlError for labels of the groups that are not known, naming each with the nearest known one."""
    known = set(known)
    unknown = [label for label in study.labels if label not in known]
    if unknown:
        free = sorted(known - set(study.labels))
        named = listed(f"{label!r}{did_you_mean(label, free)}" for label in unknown)
        verb = "is" if len(unknown) == 1 else "are"
        raise EdgetlError(f"groups name {named}, which {verb} not in the data; the data has: {listed(sorted(known))}")


def listed(names: Iterable[str], limit: int = 30) -> str:
    """Names for a message: the first ``limit``, and the number of the others."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return (", ".join(every[:limit]) + more) or "none"
