"""Scenarios: of plain files, each by itself or all together, and of a study's deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from edgetl.arrays import Float32Array
from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.measurements import Scenario, ScenarioName
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.cadence import PeriodicWorkload
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.scenarios.issue import ConcurrentWorkload, PendingResult
from edgetl.measure.scenarios.offline import Streams
from edgetl.measure.scenarios.queries import Query
from edgetl.measure.scenarios.subjects import Subjects, measure_scenario
from edgetl.measure.timing import Workload
from edgetl.stages.measuring import engine_call
from edgetl.stages.scenario_request import ScenarioRequest, rates_of
from edgetl.stages.serving import Loaded, load, run_options
from edgetl.stages.stage import Context, ProgressReporter

WorkloadFactory = Callable[[int], Workload]
"""A call that takes so many images through a deployment at once; it may fail where the engines take fewer."""


def query(make: WorkloadFactory, size: int) -> Query:
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
    order: ScenarioRequest, subjects: Subjects, plan: ScenarioPlan, reporter: ProgressReporter
) -> tuple[Scenario, ...]:
    """All scenarios that are asked for, one after another."""
    found: list[Scenario] = []
    for name in order.scenarios:
        with reporter.progress(f"measuring {name}", 1.0) as advance:
            found.extend(measure_scenario(name, subjects, plan, advance_to(advance)))
    return tuple(found)


def advance_to(advance: Callable[[float], object]) -> Callable[[float], None]:
    """Advances a bar to the share that it is told."""
    done = 0.0

    def watch(share: float) -> None:
        nonlocal done
        advance(share - done)
        done = share

    return watch


TOGETHER = "all files"
"""The title of all of them as one deployment."""


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
    """Files as what is measured in scenarios."""

    def __init__(
        self, opens: Mapping[str, Callable[[], Engine]], request: ScenarioRequest, rates: Mapping[str, float]
    ) -> None:
        """``opens``: loads the engine of each file, again for each stream."""
        self._opens, self._order, self._rates = opens, request, rates
        self._engines = {name: _single(name, load_it()) for name, load_it in opens.items()}

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        size = self._order.size(scenario)
        return {name: query(partial(engine_call, engine), size) for name, engine in self._engines.items()}

    def streams(self) -> Mapping[str, Streams]:
        return {
            name: streams([partial(engine_call, again()) for _ in range(self._order.streams)], name, self._order.batch)
            for name, again in self._opens.items()
        }

    def paced(self) -> Mapping[str, Mapping[str, PeriodicWorkload]]:
        return {
            TOGETHER: {
                name: PeriodicWorkload(engine_call(one), self._rates[name]) for name, one in self._engines.items()
            }
        }

    def parts(self) -> Mapping[str, Mapping[str, ConcurrentWorkload]]:
        return {TOGETHER: {name: _part(engine) for name, engine in self._engines.items()}}


def _single(name: str, engine: Engine) -> Engine:
    """Of an engine that takes no less than several images no scenario could say how long one takes."""
    if any(shape[0] != 1 for shape in engine.shapes):
        raise EdgetlError(f"{name} takes no less than {engine.shapes[0][0]} images; scenarios need one that takes 1")
    return engine


def _part(engine: Engine) -> ConcurrentWorkload:
    """TensorRT's engines can queue an inference; the Protocol of all does not ask for it."""
    call, start = engine_call(engine), getattr(engine, "start", None)
    return ConcurrentWorkload(call, partial(start, *call.inputs) if start else None)


LoadedDeployments = Mapping[str, tuple[Deployment, Sequence[Loaded]]]
DeploymentEngines = Mapping[str, tuple[Deployment, Sequence[Path]]]

ALL_GROUPS = "all groups"
"""The part of a deployment whose engine, or cascade of engines, serves every group."""


class Serving(Protocol):
    """The module of a task that asks its deployments."""

    def workloads(
        self, context: Context, loaded: LoadedDeployments, number: int, batch: int = 1
    ) -> dict[str, Workload]:
        """A call for each deployment, by title, that takes so many images through all of its engines at once.

        ``number``: how often they were loaded before; where images differ, other ones come first each time.
        """

    def image(self, context: Context, shape: tuple[int, ...]) -> Float32Array:
        """An image to queue inferences with, as an engine takes it."""


def group_rates(request: ScenarioRequest, groups: Sequence[str], wanted: DeploymentEngines) -> dict[str, float]:
    """The rate of each group; checked before anything is measured.

    Raises:
        EdgetlError: a scenario cannot be measured of these deployments.
    """
    if "concurrent" in request.scenarios and not any(_independent(deployment) for deployment, _ in wanted.values()):
        raise EdgetlError("concurrent needs a deployment of several engines; add specialised to deployments")
    return rates_of(request, {group: group for group in groups}, "group") if "cadence" in request.scenarios else {}


def _independent(deployment: Deployment) -> bool:
    """Whether each group has an engine of its own. A cascade's follow on one another: they are one part."""
    return deployment.kind == "specialised" and len(deployment.graphs) > 1


class StudySubjects:
    """Deployments as what is measured in scenarios."""

    def __init__(
        self, context: Context, serving: Serving, wanted: DeploymentEngines, rates: Mapping[str, float]
    ) -> None:
        self._context, self._serving, self._wanted, self._rates = context, serving, wanted, rates
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
            title: streams([makes[title] for makes in copies], title, self._request.batch) for title in self._wanted
        }

    def paced(self) -> Mapping[str, Mapping[str, PeriodicWorkload]]:
        fastest = max(self._rates.values())
        return {
            title: {
                name: PeriodicWorkload(call, self._rates.get(name, fastest))
                for name, call in self._calls(title).items()
            }
            for title in self._wanted
        }

    def parts(self) -> Mapping[str, Mapping[str, ConcurrentWorkload]]:
        several = [title for title, (deployment, _) in self._wanted.items() if _independent(deployment)]
        return {title: self._parts(title) for title in several}

    def _parts(self, title: str) -> dict[str, ConcurrentWorkload]:
        calls, (_, loaded) = self._calls(title), self._loaded[title]
        return {
            name: ConcurrentWorkload(call, self._start(one.engine))
            for (name, call), one in zip(calls.items(), loaded, strict=True)
        }

    def _start(self, engine: Engine) -> Callable[[], PendingResult] | None:
        """TensorRT's engines can queue an inference."""
        start = getattr(engine, "start", None)
        return None if start is None else partial(start, self._serving.image(self._context, engine.shapes[0]))

    def _load(self) -> LoadedDeployments:
        engines = load(self._wanted, run_options(self._context, self._context.options.threads))
        return {title: (self._wanted[title][0], own) for title, own in engines.items()}

    def _makes(self, loaded: LoadedDeployments) -> dict[str, Callable[[int], Workload]]:
        def make(title: str, batch: int) -> Workload:
            return self._serving.workloads(self._context, {title: loaded[title]}, 0, batch)[title]

        return {title: partial(make, title) for title in loaded}

    def _calls(self, title: str) -> dict[str, Workload]:
        """A call for each part of a deployment: of its group, or of all of them."""
        deployment, loaded = self._loaded[title]
        if not _independent(deployment):
            return self._serving.workloads(self._context, {ALL_GROUPS: (deployment, loaded)}, 0)
        apart = {one.spec.heads[0].partition("@")[0]: (_alone(deployment, one), [one]) for one in loaded}
        return self._serving.workloads(self._context, apart, 0)


def _alone(deployment: Deployment, one: Loaded) -> Deployment:
    return deployment.model_copy(update={"graphs": (one.spec,)})
