"""The scenarios that a user asks for, and their rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from edgetl.artifacts.measurements import ScenarioName
from edgetl.errors import EdgetlError, did_you_mean

_SLOWEST_HZ = 0.1
"""The slowest rate: a round takes some periods, and with longer ones it would take minutes."""


@dataclass(frozen=True)
class ScenarioRequest:
    """The scenarios to measure; ``rates`` in Hz by the user's names, ``batch`` and ``streams`` for ``offline``."""

    scenarios: tuple[ScenarioName, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    query_size: int = 8
    batch: int = 1
    streams: int = 1

    def size(self, scenario: ScenarioName) -> int:
        """The number of images in a query."""
        return self.query_size if scenario == "multi-stream" else 1

    def settings(self) -> dict[str, Any]:
        """The settings that a measurement depends on, as JSON keeps them; empty where no scenario is asked for."""
        content = asdict(self) | {"scenarios": list(self.scenarios), "rates": dict(self.rates)}
        return {"scenarios": content} if self.scenarios else {}


def refuse_shared_scratch(request: ScenarioRequest, shared: bool) -> None:
    """Raise EdgetlError where engines that share scratch memory, and so wait for each other, should run at once."""
    at_once = "concurrent" in request.scenarios or ("offline" in request.scenarios and request.streams > 1)
    if shared and at_once:
        raise EdgetlError("engines that share scratch memory never run at once; measure without share_scratch")


def read_rates(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The names and rates of texts like ``NAME=HZ``.

    Raises:
        EdgetlError: one is written otherwise, or is no rate at which anything can be measured.
    """
    rates = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = float("nan")
        if not name or not isfinite(rate) or rate <= 0.0:
            raise EdgetlError(f"--rate {text} is not NAME=HZ with a rate above 0; write for example signs=5")
        if rate < _SLOWEST_HZ:
            raise EdgetlError(f"--rate {text} is slower than {_SLOWEST_HZ:g} Hz; a round would take minutes")
        rates.append((name, rate))
    return tuple(rates)


def rates_of(request: ScenarioRequest, names: Mapping[str, str], what: str) -> dict[str, float]:
    """The rate of every group or file.

    Args:
        names: the group or file for each name that it may be given by.
        what: the word for messages: ``group``, ``file``.

    Raises:
        EdgetlError: a name is unknown, something has no rate, or has two.
    """
    rates: dict[str, float] = {}
    for name, rate in request.rates:
        if name not in names:
            known = ", ".join(dict.fromkeys(names.values()))
            raise EdgetlError(f"--rate {name}={rate:g} names no {what}{did_you_mean(name, names)}; there are {known}")
        if names[name] in rates:
            raise EdgetlError(f"--rate gives {names[name]} two rates; give it once")
        rates[names[name]] = rate
    missing = [one for one in dict.fromkeys(names.values()) if one not in rates]
    if missing:
        raise EdgetlError(
            f"cadence needs the rate of each {what}, and {missing[0]} has none; add --rate {missing[0]}=HZ"
        )
    return rates
