"""Figures and lists as text: the same in sentences, in the table and in the report, in plain ASCII."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A sentence with more names than this is not read.
MOST_LISTED = 5


def printable(text: str) -> str:
    """Return one line without control characters: names and reasons come from files and may hold terminal escapes."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def percent(fraction: float) -> str:
    """Return ``0.9312`` as ``93.1``."""
    return f"{fraction * 100:.1f}"


def points(fraction: float) -> str:
    """Return a difference of fractions in percentage points; with two decimals where one would leave nothing."""
    size = fraction * 100
    text = f"{size:.2f}" if 0.005 <= abs(size) < 0.095 else f"{size:.1f}"
    # -0.0 would say that something was lost.
    return text.removeprefix("-") if float(text) == 0.0 else text


def signed(fraction: float) -> str:
    """Return a difference in points with its sign."""
    text = points(fraction)
    return text if text.startswith("-") else f"+{text}"


def significant(value: float, digits: int = 3) -> str:
    """Return ``value`` with three significant digits and no exponent: ``0.0421``, ``2.10``, ``12.3``, ``1234``."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(decimals, 0)}f}"


def times(ratio: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a ratio and the ends of its interval."""
    # Near one it needs a third decimal, or ``1.004`` reads as no difference.
    decimals = 3 if 0.9 < ratio < 1.1 else 2 if ratio < 10.0 else 1
    return f"{ratio:.{decimals}f}", f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def megabytes(size: float) -> str:
    """Return bytes as MB (10^6 bytes)."""
    return significant(size / 1e6)


def count(number: int, what: str) -> str:
    """Return a number with its noun: ``1 engine``, ``2,000 images``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def listed(items: Sequence[str]) -> str:
    """Return names as in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def abridged(items: Sequence[str]) -> str:
    """Return names as `listed` does; of more than `MOST_LISTED` only the first few: ``a, b, c, d and 7 others``."""
    if len(items) <= MOST_LISTED:
        return listed(items)
    shown = MOST_LISTED - 1
    return listed([*items[:shown], f"{len(items) - shown} others"])


def flops_unit(largest: int) -> tuple[str, float]:
    """Return the unit in which FLOPs up to ``largest`` are easily read, and its size."""
    return ("GFLOPs", 1e9) if largest >= 1e9 else ("MFLOPs", 1e6)


def flops(number: int) -> str:
    """Return FLOPs with their unit: ``602 MFLOPs``, ``8.18 GFLOPs``."""
    unit, size = flops_unit(number)
    return f"{significant(number / size)} {unit}"
