"""What scenarios of files and of studies have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgetl.artifacts.scenarios import Scenario
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.issue import Part
from edgetl.measure.scenarios.offline import Streams
from edgetl.measure.scenarios.queries import Query
from edgetl.measure.scenarios.rounds import Plan
from edgetl.measure.scenarios.subjects import Subjects, measure_scenario
from edgetl.stages.scenario_order import ScenarioOrder
from edgetl.stages.stage import Watcher

Call = Callable[[], object]
Make = Callable[[int], Call]
"""A call that takes so many images through a deployment at once; it may fail where the engines take fewer."""


def query(make: Make, size: int) -> Query:
    """A query of so many images: in one inference where the engines take as many, else one after another."""
    together = make(size)
    try:
        together()
    except EdgetlError:
        if size == 1:
            raise
        single = make(1)
        return Query(lambda: [single() for _ in range(size)], size)
    return Query(together, size, batch=size)


def streams(makes: Sequence[Make], title: str, batch: int) -> Streams:
    """Streams of which each takes ``batch`` images at once.

    Raises:
        EdgetlError: the engines do not take as many.
    """
    calls = [make(batch) for make in makes]
    try:
        calls[0]()
    except EdgetlError as error:
        if batch == 1:
            raise
        raise EdgetlError(
            f"{title} does not take {batch} images at once; export it with a dynamic batch, or leave --batch out"
        ) from error
    return Streams([Part(call) for call in calls], batch)


def measure_scenarios(order: ScenarioOrder, subjects: Subjects, plan: Plan, watcher: Watcher) -> tuple[Scenario, ...]:
    """All scenarios that are asked for, one after another."""
    found: list[Scenario] = []
    for name in order.scenarios:
        with watcher.progress(f"measuring {name}", 1.0) as advance:
            found.extend(measure_scenario(name, subjects, plan, shares(advance)))
    return tuple(found)


def shares(advance: Callable[[float], object]) -> Callable[[float], None]:
    """Advances a bar to the share that it is told."""
    done = 0.0

    def watch(share: float) -> None:
        nonlocal done
        advance(share - done)
        done = share

    return watch
