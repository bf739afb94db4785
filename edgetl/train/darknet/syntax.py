"""The syntax of Darknet's .cfg files: sections of options, one on a line.

As Darknet reads them (``read_cfg`` and ``option_find`` of its sources): blanks count nowhere, not even inside a value;
a line that begins with # or ; is a comment; of an option that a section holds twice **the first one counts**. Beyond
that, what follows a # is a comment too, as it is wherever Darknet reads a number.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import EdgetlError

# Published .cfg files have tens of kilobytes and at most a few hundred sections.
_MOST_BYTES = 1 << 20
_MOST_SECTIONS = 2048
_HEADER = re.compile(r"\[([A-Za-z0-9_]{1,40})\]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
# Darknet's other names of sections.
_SHORT = {
    "network": "net",
    "conv": "convolutional",
    "max": "maxpool",
    "avg": "avgpool",
    "local_avg": "local_avgpool",
    "soft": "softmax",
}


@dataclass(frozen=True)
class Option:
    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """A part of a .cfg file.

    ``number`` is Darknet's: the section after [net] is layer 0, [net] itself is -1. ``line`` is that of its name.
    """

    file: str
    number: int
    name: str
    line: int
    options: tuple[Option, ...] = ()

    def option(self, key: str) -> Option | None:
        """The first option of this name: the one that Darknet heeds."""
        return next((option for option in self.options if option.key == key), None)

    def fault(self, what: str, key: str = "") -> EdgetlError:
        """An error at this section's line, or at the line of its option ``key`` where that is there."""
        option = self.option(key)
        layer = f"layer {self.number} " if self.number >= 0 else ""
        return EdgetlError(f"{self.file} line {option.line if option else self.line}: {layer}[{self.name}] {what}")

    def word(self, key: str, default: str) -> str:
        option = self.option(key)
        return option.value if option else default

    def whole(self, key: str, default: int, lowest: int, highest: int) -> int:
        """An option's whole number.

        Raises:
            EdgetlError: it is no whole number, or out of bounds.
        """
        text = self.word(key, str(default))
        if not _WHOLE.fullmatch(text) or not lowest <= int(text) <= highest:
            expected = f"a whole number from {lowest} to {highest}" if lowest < highest else str(lowest)
            raise self.fault(f"has {text[:40]!r} as {key}, expected {expected}", key)
        return int(text)

    def wholes(self, key: str) -> tuple[int, ...]:
        """An option's whole numbers between commas; none where the option is missing.

        Raises:
            EdgetlError: one of them is no whole number.
        """
        parts = self._parts(key)
        wrong = next((part for part in parts if not _WHOLE.fullmatch(part)), None)
        if wrong is not None:
            raise self.fault(f"has {wrong[:40]!r} in {key}, expected whole numbers between commas", key)
        return tuple(int(part) for part in parts)

    def reals(self, key: str, default: str = "") -> tuple[float, ...]:
        """An option's finite numbers between commas; those of ``default`` where the option is missing.

        Raises:
            EdgetlError: one of them is no finite number.
        """
        parts = self._parts(key, default)
        wrong = next((part for part in parts if not _REAL.fullmatch(part) or not math.isfinite(float(part))), None)
        if wrong is not None:
            raise self.fault(f"has {wrong[:40]!r} in {key}, expected numbers between commas", key)
        return tuple(float(part) for part in parts)

    def real(self, key: str, default: float) -> float:
        """An option's finite number.

        Raises:
            EdgetlError: it is no finite number, or several.
        """
        numbers = self.reals(key, str(default))
        if len(numbers) != 1:
            raise self.fault(f"has {len(numbers)} numbers in {key}, expected one", key)
        return numbers[0]

    def _parts(self, key: str, default: str = "") -> list[str]:
        text = self.word(key, default)
        return text.split(",") if text else []


def read_sections(path: Path) -> list[Section]:
    """The sections of a .cfg file, in their order.

    Raises:
        EdgetlError: the file is missing or too large, or is no .cfg file.
    """
    file = str(path)
    found: list[tuple[str, int, list[Option]]] = []
    for line, text in enumerate(_text(path).split("\n"), 1):
        content = "".join(text.split()).partition("#")[0]
        header, (key, equals, value) = _HEADER.fullmatch(content), content.partition("=")
        if not content or content.startswith(";"):
            continue
        if header:
            found.append((header[1], line, []))
        elif not equals or content.startswith("["):
            raise EdgetlError(f"{file} line {line}: {content[:40]!r} is neither a [section] nor an option=value")
        elif not found:
            raise EdgetlError(f"{file} line {line}: {content[:40]!r} stands before any section, expected [net] first")
        else:
            found[-1][2].append(Option(key, value, line))
    if len(found) > _MOST_SECTIONS:
        raise EdgetlError(f"{file} has {len(found)} sections, more than the {_MOST_SECTIONS} that are read")
    return [
        Section(file, number, _SHORT.get(name, name), line, tuple(options))
        for number, (name, line, options) in enumerate(found, -1)
    ]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)  # not all of it: a .weights file given by mistake has gigabytes
    except FileNotFoundError:
        raise EdgetlError(f"{path} does not exist; expected a Darknet .cfg file") from None
    except (OSError, ValueError) as error:
        raise EdgetlError(f"{path} cannot be read: {error}") from error
    if len(content) > _MOST_BYTES:
        raise EdgetlError(f"{path} is larger than {_MOST_BYTES} bytes, expected a Darknet .cfg file")
    return content.decode("utf-8-sig", errors="replace")
