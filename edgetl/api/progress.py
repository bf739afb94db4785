"""How a caller of the Python API follows work that takes time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgetl.stages.stage import ProgressReporter

Progress = Callable[[str], object] | ProgressReporter
"""Either a function that is called with each message, such as ``print``, or an object that shows progress bars too."""


class _Messages:
    """Gives messages to a function, and shows no bars."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def message(self, text: str) -> None:
        self._tell(text)

    @contextmanager
    def progress(self, title: str, total: float) -> Iterator[Callable[[float], object]]:
        del title, total
        yield bool  # takes a number and does nothing


def reporter_of(progress: Progress | None) -> ProgressReporter:
    """The reporter that tells ``progress``; a silent one for None."""
    if progress is None:
        return _Messages(bool)
    return _Messages(progress) if callable(progress) else progress
