"""Scenarios of a study's deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.deployment import Deployment
from edgetl.artifacts.scenarios import ScenarioName
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.scenarios.cadence import Paced
from edgetl.measure.scenarios.issue import Part, Pending
from edgetl.measure.scenarios.offline import Streams
from edgetl.measure.scenarios.queries import Query
from edgetl.stages.scenario_order import ScenarioOrder, rates_of
from edgetl.stages.scenarios import Call, query, streams
from edgetl.stages.serving import Loaded, load, run_options
from edgetl.stages.stage import Context

Array = npt.NDArray[np.float32]
Serve = Mapping[str, tuple[Deployment, Sequence[Loaded]]]
Wanted = Mapping[str, tuple[Deployment, Sequence[Path]]]

ALL_GROUPS = "all groups"
"""The part of a deployment whose engine, or cascade of engines, serves every group."""


class Serving(Protocol):
    """The module of a task that asks its deployments."""

    def workloads(self, context: Context, loaded: Serve, number: int, batch: int = 1) -> dict[str, Call]:
        """A call for each deployment, by title, that takes so many images through all of its engines at once.

        ``number``: how often they were loaded before; where images differ, other ones come first each time.
        """

    def image(self, context: Context, shape: tuple[int, ...]) -> Array:
        """An image to queue inferences with, as an engine takes it."""


def group_rates(order: ScenarioOrder, groups: Sequence[str], wanted: Wanted) -> dict[str, float]:
    """The rate of each group; checked before anything is measured.

    Raises:
        EdgetlError: a scenario cannot be measured of these deployments.
    """
    if "concurrent" in order.scenarios and not any(_independent(deployment) for deployment, _ in wanted.values()):
        raise EdgetlError("concurrent needs a deployment of several engines; add specialised to deployments")
    return rates_of(order, {group: group for group in groups}, "group") if "cadence" in order.scenarios else {}


def _independent(deployment: Deployment) -> bool:
    """Whether each group has an engine of its own. A cascade's follow on one another: they are one part."""
    return deployment.kind == "specialised" and len(deployment.graphs) > 1


class StudySubjects:
    """Deployments as what is measured in scenarios."""

    def __init__(self, context: Context, serving: Serving, wanted: Wanted, rates: Mapping[str, float]) -> None:
        self._context, self._serving, self._wanted, self._rates = context, serving, wanted, rates
        self._loaded = self._load()

    @property
    def _order(self) -> ScenarioOrder:
        return self._context.options.scenarios

    def queries(self, scenario: ScenarioName) -> Mapping[str, Query]:
        makes = self._makes(self._loaded)
        return {title: query(make, self._order.size(scenario)) for title, make in makes.items()}

    def streams(self) -> Mapping[str, Streams]:
        copies = [self._makes(self._load()) for _ in range(self._order.streams)]
        return {title: streams([makes[title] for makes in copies], title, self._order.batch) for title in self._wanted}

    def paced(self) -> Mapping[str, Mapping[str, Paced]]:
        fastest = max(self._rates.values())
        return {
            title: {name: Paced(call, self._rates.get(name, fastest)) for name, call in self._calls(title).items()}
            for title in self._wanted
        }

    def parts(self) -> Mapping[str, Mapping[str, Part]]:
        several = [title for title, (deployment, _) in self._wanted.items() if _independent(deployment)]
        return {title: self._parts(title) for title in several}

    def _parts(self, title: str) -> dict[str, Part]:
        calls, (_, loaded) = self._calls(title), self._loaded[title]
        return {
            name: Part(call, self._start(one.engine)) for (name, call), one in zip(calls.items(), loaded, strict=True)
        }

    def _start(self, engine: Engine) -> Callable[[], Pending] | None:
        """TensorRT's engines can queue an inference."""
        start = getattr(engine, "start", None)
        return None if start is None else partial(start, self._serving.image(self._context, engine.shapes[0]))

    def _load(self) -> Serve:
        engines = load(self._wanted, run_options(self._context, self._context.options.threads))
        return {title: (self._wanted[title][0], own) for title, own in engines.items()}

    def _makes(self, loaded: Serve) -> dict[str, Callable[[int], Call]]:
        def make(title: str, batch: int) -> Call:
            return self._serving.workloads(self._context, {title: loaded[title]}, 0, batch)[title]

        return {title: partial(make, title) for title in loaded}

    def _calls(self, title: str) -> dict[str, Call]:
        """A call for each part of a deployment: of its group, or of all of them."""
        deployment, loaded = self._loaded[title]
        if not _independent(deployment):
            return self._serving.workloads(self._context, {ALL_GROUPS: (deployment, loaded)}, 0)
        apart = {one.spec.heads[0].partition("@")[0]: (_alone(deployment, one), [one]) for one in loaded}
        return self._serving.workloads(self._context, apart, 0)


def _alone(deployment: Deployment, one: Loaded) -> Deployment:
    return deployment.model_copy(update={"graphs": (one.spec,)})
