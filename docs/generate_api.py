"""Write docs/api.md from the docstrings of the public names. ``make docs`` runs it; a test keeps the file true."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import edgetl

TARGET = Path(__file__).parent / "api.md"


def reference() -> str:
    """The whole reference as Markdown."""
    parts = [
        "# Python reference",
        "Made by `make docs` from the docstrings. [From Python](python.md) has examples.",
        "`AnyPath` is a `str` or a `Path`.",
    ]
    for name in edgetl.__all__:
        parts += _section(f"edgetl.{name}", getattr(edgetl, name))
    return "\n\n".join(parts) + "\n"


def _section(name: str, value: Any) -> Iterator[str]:
    yield f"## {name}"
    if not inspect.isclass(value):
        yield _block(f"{name}{_signature(value)}", value)
        return
    # Objects of the other classes are made by functions.
    made_by_callers = is_dataclass(value) or value is edgetl.Study
    yield _block(f"{name}{_signature(value)}" if made_by_callers else name, value)
    settings = getattr(value, "__dataclass_fields__", {})
    for member_name, member in vars(value).items():
        if member_name in settings or (member_name.startswith("_") and member_name != "__call__"):
            continue
        if isinstance(member, property):
            yield f"### {name}.{member_name}\n\n{_block(member_name, member)}"
        elif isinstance(member, classmethod) or inspect.isfunction(member):
            function = getattr(value, member_name)
            yield f"### {name}.{member_name}\n\n{_block(f'{member_name}{_signature(function)}', function)}"


def _signature(value: Any) -> str:
    text = str(inspect.signature(value))
    text = re.sub(r"""(: |-> )(["'])(.*?)\2""", r"\1\3", text)  # annotations are strings
    text = re.sub(r"<function (\w+) at \w+>", r"\1", text)
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)  # the modules that types lie in
    return text.replace("(self, ", "(").replace("(self)", "()").removesuffix(" -> None")


def _block(first: str, value: Any) -> str:
    return f"```text\n{first}\n\n{inspect.getdoc(value)}\n```"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
