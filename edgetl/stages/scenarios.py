"""Measures plain files, each alone or all together, and a study's deployments in scenarios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edgetl.artifacts.bundle import role_of
from edgetl.artifacts.measurements import Scenario, ScenarioName
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.cadence import PeriodicWorkload
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.scenarios.issue import ConcurrentWorkload
from edgetl.measure.scenarios.offline import Streams
from edgetl.measure.scenarios.queries import Query
from edgetl.measure.scenarios.subjects import Subjects, measure_scenario
from edgetl.measure.timing import Workload
from edgetl.stages.measuring import engine_call
from edgetl.stages.scenario_request import ScenarioRequest, rates_of
from edgetl.stages.serving import DeploymentEngines, load, run_options
from edgetl.stages.stage import Context, ProgressReporter, advance_to
from edgetl.stages.task import LoadedDeployments, Task

WorkloadFactory = Callable[[int], Workload]
"""Makes a call that runs so many images at once through a deployment; it may fail where the engines take fewer."""


def query(make: WorkloadFactory, size: int) -> Query:
    """A query of ``size`` images: in one inference where the engines take as many, else one after another."""
    together = make(size)
    # Tried, not asked: an engine does not tell which batches it takes.
    try:
        together()
    except EdgetlError:
        if size == 1:
            raise
        single = make(1)
        return Query(lambda: [single() for _ in range(size)], size)
    return Query(together, size, batch=size)


def streams(makes: Sequence[WorkloadFactory], title: str, batch: int) -> Streams:
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
    return Streams([ConcurrentWorkload(call) for call in calls], batch)


def measure_scenarios(
    request: ScenarioRequest, subjects: Subjects, plan: ScenarioPlan, reporter: ProgressReporter
) -> tuple[Scenario, ...]:
    """The results of all requested scenarios, measured one after another."""
    found: list[Scenario] = []
    for name in request.scenarios:
        with reporter.progress(f"measuring {name}", 1.0) as advance:
            found.extend(measure_scenario(name, subjects, plan, advance_to(advance)))
    return tuple(found)


TOGETHER = "all files"
"""The title of all files as one deployment."""


def file_rates(request: ScenarioRequest, names: Sequence[str]) -> dict[str, float]:
    """The rate of each file, which may be called by its stem; checked before anything is measured.

    Raises:
        EdgetlError: a scenario cannot be measured of these files.
    """
    if "concurrent" in request.scenarios and len(names) < 2:
        raise EdgetlError(f"concurrent needs two files or more, and {names[0]} is alone; name another")
    if "cadence" not in request.scenarios:
        return {}
    stems = [Path(name).stem for name in names]
    by_stem = {stem: name for stem, name in zip(stems, names, strict=True) if stems.count(stem) == 1}
    return rates_of(request, by_stem | {name: name for name in names}, "file")


class FileSubjects:
    """Files as subjects of scenarios."""

    def __init__(
        self, opens: Mapping[str, Callable[[], Engine]], request: ScenarioRequest, rates: Mapping[str, float]
    ) -> None:
        """``opens``: functions that load the engine of each file, called again for each stream."""
        self._opens, self._request, self._rates = opens, request, rates
        self._engines = {name: load_it() for name, load_it in opens.items()}
        for name, engine in self._engines.items():
            # Of an engine that takes no less than several images no scenario could tell how long one takes.
            if any(shape[0] != 1 for shape in engine.shapes):
                least = engine.shapes[0][0]
                raise EdgetlError(f"{name} takes no less than {least} images; scenarios need one that takes 1")

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        size = self._request.size(scenario)
        return {name: query(partial(engine_call, engine), size) for name, engine in self._engines.items()}

    def streams(self) -> Mapping[str, Streams]:
        return {
            name: streams(
                [partial(engine_call, again()) for _ in range(self._request.streams)], name, self._request.batch
            )
            for name, again in self._opens.items()
        }

    def paced(self) -> Mapping[str, Mapping[str, PeriodicWorkload]]:
        return {
            TOGETHER: {
                name: PeriodicWorkload(engine_call(one), self._rates[name]) for name, one in self._engines.items()
            }
        }

    def parts(self) -> Mapping[str, Mapping[str, ConcurrentWorkload]]:
        parts = {}
        for name, engine in self._engines.items():
            # TensorRT's engines can queue an inference; the Protocol of all engines does not ask for it.
            call, start = engine_call(engine), getattr(engine, "start", None)
            parts[name] = ConcurrentWorkload(call, partial(start, *call.inputs) if start else None)
        return {TOGETHER: parts}


ALL_GROUPS = "all groups"
"""The part of a deployment whose engine, or cascade of engines, serves every group."""


def group_rates(request: ScenarioRequest, groups: Sequence[str], planned: DeploymentEngines) -> dict[str, float]:
    """The rate of each group; checked before anything is measured.

    Raises:
        EdgetlError: a scenario cannot be measured of these deployments.
    """
    if "concurrent" in request.scenarios and not any(one.independent for one, _ in planned.values()):
        raise EdgetlError("concurrent needs a deployment of several engines; add specialised to deployments")
    return rates_of(request, {group: group for group in groups}, "group") if "cadence" in request.scenarios else {}


class StudySubjects:
    """A study's deployments as subjects of scenarios."""

    def __init__(self, context: Context, task: Task, planned: DeploymentEngines, rates: Mapping[str, float]) -> None:
        self._context, self._task, self._planned, self._rates = context, task, planned, rates
        self._loaded = self._load()

    @property
    def _request(self) -> ScenarioRequest:
        return self._context.options.scenarios

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        makes = self._makes(self._loaded)
        return {title: query(make, self._request.size(scenario)) for title, make in makes.items()}

    def streams(self) -> Mapping[str, Streams]:
        copies = [self._makes(self._load()) for _ in range(self._request.streams)]
        return {
            title: streams([makes[title] for makes in copies], title, self._request.batch) for title in self._planned
        }

    def paced(self) -> Mapping[str, Mapping[str, PeriodicWorkload]]:
        # An engine that serves all groups has to keep up with the fastest of them.
        fastest = max(self._rates.values())
        return {
            title: {
                name: PeriodicWorkload(call, self._rates.get(name, fastest))
                for name, call in self._calls(title).items()
            }
            for title in self._planned
        }

    def parts(self) -> Mapping[str, Mapping[str, ConcurrentWorkload]]:
        parts: dict[str, dict[str, ConcurrentWorkload]] = {}
        for title in [title for title, (deployment, _) in self._planned.items() if deployment.independent]:
            parts[title] = {}
            for (name, call), loaded in zip(self._calls(title).items(), self._loaded[title][1], strict=True):
                start = getattr(loaded.engine, "start", None)  # as for files: only TensorRT's engines have it
                image = self._task.image(self._context, loaded.engine.shapes[0]) if start else None
                parts[title][name] = ConcurrentWorkload(call, partial(start, image) if start else None)
        return parts

    def _load(self) -> LoadedDeployments:
        engines = load(self._planned, run_options(self._context, self._context.options.threads))
        return {title: (self._planned[title][0], own) for title, own in engines.items()}

    def _makes(self, loaded: LoadedDeployments) -> dict[str, Callable[[int], Workload]]:
        def make(title: str, batch: int) -> Workload:
            return self._task.workloads(self._context, {title: loaded[title]}, 0, batch)[title]

        return {title: partial(make, title) for title in loaded}

    def _calls(self, title: str) -> dict[str, Workload]:
        """A call for each part of a deployment, by its group, or one for all of its groups."""
        deployment, loaded = self._loaded[title]
        if not deployment.independent:
            return self._task.workloads(self._context, {ALL_GROUPS: (deployment, loaded)}, 0)
        apart = {role_of(one.spec.heads[0]): (deployment.replaced(graphs=(one.spec,)), [one]) for one in loaded}
        return self._task.workloads(self._context, apart, 0)
