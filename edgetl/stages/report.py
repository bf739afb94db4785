"""Joins all measurements into a verdict, and writes results.json and report.html."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json, write_bytes, write_json
from edgetl.artifacts.results import Evaluation, Profile, Results
from edgetl.report.html import render_html
from edgetl.report.verdict import decide
from edgetl.stages.build_engine import accuracy_control_result
from edgetl.stages.stage import Context


def inputs(context: Context) -> dict[str, Any]:
    del context
    return {}


class Facts(Protocol):
    """The module of a task that tells what its data and its training were like."""

    def data_facts(self, context: Context, evaluation: Evaluation) -> dict[str, Any]:
        """The section ``data`` of results.json."""

    def training_facts(self, context: Context) -> dict[str, Any]:
        """The section ``training`` of results.json."""


def work(context: Context) -> list[Path]:
    evaluation = read_json(context.run.measurements / "accuracy.json", Evaluation)
    profile = read_json(context.run.measurements / "latency.json", Profile)
    scores = {
        one.title: {"accuracy": one.accuracy, "average_precision": one.average_precision}
        for one in evaluation.deployments
    }
    measured = tuple(one.replaced(**scores[one.title]) for one in profile.deployments)
    comparisons = (*evaluation.comparisons, *profile.comparisons)
    shortlist = read_json(context.run.shortlist, Shortlist)
    budget, controlled = context.study.budget, accuracy_control_result(context)
    facts = cast(Facts, importlib.import_module(f"edgetl.stages.{context.study.task}.facts"))
    results = Results(
        study=context.study.name,
        environment=profile.environment,
        metric=evaluation.metric,
        data=facts.data_facts(context, evaluation),
        training=facts.training_facts(context) | _cascade(shortlist, context.study.groups),
        budget={key: value for key, value in budget.model_dump().items() if value is not None},
        deployments=measured,
        comparisons=comparisons,
        trees=shortlist.trees,
        disturbances=profile.disturbances,
        scenarios=profile.scenarios,
        accuracy_control=controlled,
        verdict=decide(measured, comparisons, budget, evaluation.metric, controlled),
    )
    page = render_html(results)  # before anything is written: results.json and report.html belong together
    write_json(context.run.results, results)
    write_bytes(context.run.report, page.encode())
    return [context.run.results, context.run.report]


def _cascade(shortlist: Shortlist, groups: Iterable[str]) -> dict[str, Any]:
    """The cascade's threshold and how often each group's second level runs; empty where there is no cascade."""
    if shortlist.gate is None:
        return {}
    firings = shortlist.gate.firings
    fired = {group: sum(firing.fraction for firing in firings if group in firing.groups) for group in groups}
    return {"cascade": {"threshold": shortlist.gate.threshold, "fired": fired}}
