"""The errors that a user can fix. Any other exception that reaches the command line is a bug in edgetl."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgetlError(Exception):
    """The user's input or environment is at fault: one clear line, exit code 1.

    The message says what was found, what was expected and what to do, without a traceback.
    """


class StudyError(EdgetlError):
    """A study file with one or more faults, all reported at once."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source = source
        self.faults = tuple(faults)
        super().__init__(f"{source}: " + "; ".join(self.faults))


class NotMetError(EdgetlError):
    """The budget is not met, or a result is unstable, under ``--strict``: exit code 4."""


class MissingExtraError(EdgetlError):
    """A command needs packages of an extra that is not installed."""

    def __init__(self, what: str, extra: str, cause: ImportError) -> None:
        super().__init__(
            f"{what} needs {cause.name or 'a package'}, which is not installed; "
            f"install it with: pip install 'edgetl[{extra}]'"
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint `` (did you mean X?)`` where a known word is similar, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
