"""All scenarios at one door: what is asked of those that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgetl.artifacts.scenarios import Scenario, ScenarioName
from edgetl.measure.scenarios.cadence import Paced, measure_cadence
from edgetl.measure.scenarios.contention import measure_contention
from edgetl.measure.scenarios.issue import Part
from edgetl.measure.scenarios.offline import Streams, measure_offline
from edgetl.measure.scenarios.queries import Query, measure_queries
from edgetl.measure.scenarios.rounds import Plan, Watch


class Subjects(Protocol):
    """Deployments, or whatever else is measured side by side, by their titles."""

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        """A query of as many images as ``single-stream`` or ``multi-stream`` has."""

    def streams(self) -> Mapping[str, Streams]:
        """What works through all images at once."""

    def paced(self) -> Mapping[str, Mapping[str, Paced]]:
        """Engines, each at its rate."""

    def parts(self) -> Mapping[str, Mapping[str, Part]]:
        """Engines of those that have several."""


def measure_scenario(name: ScenarioName, subjects: Subjects, plan: Plan, watch: Watch = bool) -> Sequence[Scenario]:
    """Measure all subjects in a scenario, side by side."""
    measures: Mapping[ScenarioName, Callable[[], Sequence[Scenario]]] = {
        "single-stream": lambda: measure_queries("single-stream", subjects.queries(name), plan, watch),
        "multi-stream": lambda: measure_queries("multi-stream", subjects.queries(name), plan, watch),
        "offline": lambda: measure_offline(subjects.streams(), plan, watch),
        "cadence": lambda: measure_cadence(subjects.paced(), plan, watch),
        "concurrent": lambda: measure_contention(subjects.parts(), plan, watch),
    }
    return measures[name]()
