"""A machine's health in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgetl.artifacts.health import Health
from edgetl.report.wording import printable


def health_lines(health: Health) -> Iterator[str]:
    """Facts in groups, what nobody knows left out; then what can be done and what cannot."""
    for group, facts in health.facts.items():
        yield f"{group}: {_told(facts) or 'nothing found'}"
    for need in health.needs:
        if need.missing is None:
            yield f"ok       {need.what}"
        else:
            yield f"missing  {need.what}: {printable(need.missing)}"
            yield f"         mend it with: {need.mend}"


def _told(facts: Mapping[str, Any]) -> str:
    known = ((name, value) for name, value in facts.items() if value is not None and value != [])
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in known)


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else printable(str(value))
