"""Measures any scenario by its name, and says what it asks of the deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edgetl.artifacts.measurements import Scenario, ScenarioName
from edgetl.measure.scenarios.cadence import PeriodicWorkload, measure_cadence
from edgetl.measure.scenarios.contention import measure_contention
from edgetl.measure.scenarios.interleave import OnProgress, ScenarioPlan
from edgetl.measure.scenarios.issue import ConcurrentWorkload
from edgetl.measure.scenarios.offline import Streams, measure_offline
from edgetl.measure.scenarios.queries import Query, measure_queries


class Subjects(Protocol):
    """Deployments, or whatever else is measured side by side, by their titles."""

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        """Return queries of as many images as ``single-stream`` or ``multi-stream`` has."""

    def streams(self) -> Mapping[str, Streams]:
        """Return the workloads that go through all images at once."""

    def paced(self) -> Mapping[str, Mapping[str, PeriodicWorkload]]:
        """Return engines, each with its rate."""

    def parts(self) -> Mapping[str, Mapping[str, ConcurrentWorkload]]:
        """Return the engines of those deployments that have several."""


def measure_scenario(
    name: ScenarioName, subjects: Subjects, plan: ScenarioPlan, on_progress: OnProgress = bool
) -> Sequence[Scenario]:
    """Measure all subjects side by side in the scenario ``name``, and return its results."""
    measures: Mapping[ScenarioName, Callable[[], Sequence[Scenario]]] = {
        "single-stream": lambda: measure_queries("single-stream", subjects.queries(name), plan, on_progress),
        "multi-stream": lambda: measure_queries("multi-stream", subjects.queries(name), plan, on_progress),
        "offline": lambda: measure_offline(subjects.streams(), plan, on_progress),
        "cadence": lambda: measure_cadence(subjects.paced(), plan, on_progress),
        "concurrent": lambda: measure_contention(subjects.parts(), plan, on_progress),
    }
    return measures[name]()
