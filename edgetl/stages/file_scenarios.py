"""Scenarios of plain files: each by itself in streams; all together where each has a rate or they run at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edgetl.artifacts.scenarios import ScenarioName
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.cadence import Paced
from edgetl.measure.scenarios.issue import Part
from edgetl.measure.scenarios.offline import Streams
from edgetl.measure.scenarios.queries import Query
from edgetl.stages.measuring import engine_call
from edgetl.stages.scenario_order import ScenarioOrder, rates_of
from edgetl.stages.scenarios import query, streams

TOGETHER = "all files"
"""The title of all of them as one deployment."""


def file_rates(order: ScenarioOrder, names: Sequence[str]) -> dict[str, float]:
    """The rate of each file, which may be called by its stem; checked before anything is measured.

    Raises:
        EdgetlError: a scenario cannot be measured of these files.
    """
    if "concurrent" in order.scenarios and len(names) < 2:
        raise EdgetlError(f"concurrent needs two files or more, and {names[0]} is alone; name another")
    if "cadence" not in order.scenarios:
        return {}
    stems = [Path(name).stem for name in names]
    by_stem = {stem: name for stem, name in zip(stems, names, strict=True) if stems.count(stem) == 1}
    return rates_of(order, by_stem | {name: name for name in names}, "file")


class FileSubjects:
    """Files as what is measured in scenarios."""

    def __init__(
        self, opens: Mapping[str, Callable[[], Engine]], order: ScenarioOrder, rates: Mapping[str, float]
    ) -> None:
        """``opens``: loads the engine of each file, again for each stream."""
        self._opens, self._order, self._rates = opens, order, rates
        self._engines = {name: _single(name, load_it()) for name, load_it in opens.items()}

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        size = self._order.size(scenario)
        return {name: query(partial(engine_call, engine), size) for name, engine in self._engines.items()}

    def streams(self) -> Mapping[str, Streams]:
        return {
            name: streams([partial(engine_call, again()) for _ in range(self._order.streams)], name, self._order.batch)
            for name, again in self._opens.items()
        }

    def paced(self) -> Mapping[str, Mapping[str, Paced]]:
        return {TOGETHER: {name: Paced(engine_call(one), self._rates[name]) for name, one in self._engines.items()}}

    def parts(self) -> Mapping[str, Mapping[str, Part]]:
        return {TOGETHER: {name: _part(engine) for name, engine in self._engines.items()}}


def _single(name: str, engine: Engine) -> Engine:
    """Of an engine that takes no less than several images no scenario could say how long one takes."""
    if any(shape[0] != 1 for shape in engine.shapes):
        raise EdgetlError(f"{name} takes no less than {engine.shapes[0][0]} images; scenarios need one that takes 1")
    return engine


def _part(engine: Engine) -> Part:
    """TensorRT's engines can queue an inference; the Protocol of all does not ask for it."""
    call, start = engine_call(engine), getattr(engine, "start", None)
    return Part(call, partial(start, *call.inputs) if start else None)
