"""What is on a machine, and what a command lacks there."""

from __future__ import annotations

from typing import Any

from edgetl.artifacts.files import Artifact


class Need(Artifact):
    """Whether something can be done: what is ``missing`` for it, and the command that ``mends`` that."""

    what: str
    missing: str | None
    mend: str | None


class Health(Artifact):
    """``facts`` in the order in which they are read: a group, then a name and a value each; null where unknown."""

    facts: dict[str, dict[str, Any]]
    needs: tuple[Need, ...]
