"""Joins all measurements into a verdict, and writes results.json and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json, write_bytes, write_json
from edgetl.artifacts.results import Evaluation, Profile, Results
from edgetl.report.html import render_html
from edgetl.report.verdict import decide
from edgetl.stages.build_engine import accuracy_control_result
from edgetl.stages.stage import Context
from edgetl.stages.tasks import task_of


def inputs(context: Context) -> dict[str, Any]:
    del context
    return {}


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
    results = Results(
        study=context.study.name,
        environment=profile.environment,
        metric=evaluation.metric,
        data=_data_facts(context, evaluation),
        training=_training_facts(context, shortlist),
        budget={key: value for key, value in budget.model_dump().items() if value is not None},
        deployments=measured,
        comparisons=comparisons,
        trees=shortlist.trees,
        disturbances=profile.disturbances,
        scenarios=profile.scenarios,
        accuracy_control=controlled,
        verdict=decide(measured, comparisons, budget, evaluation.metric, accuracy_control=controlled),
    )
    page = render_html(results)  # before anything is written: results.json and report.html belong together
    write_json(context.run.results, results)
    write_bytes(context.run.report, page.encode())
    return [context.run.results, context.run.report]


def _data_facts(context: Context, evaluation: Evaluation) -> dict[str, Any]:
    """The section ``data`` of results.json."""
    task = task_of(context.study)
    index, _ = task.read_index(context)
    broken = (*index.broken, *task.read_bundle(context).broken, *evaluation.broken)
    more, _ = task.facts(context)
    return {
        "format": context.study.data.format,
        "groups": {group: list(labels) for group, labels in context.study.groups.items()},
        "images": {split: len(index.split(split)) for split in SPLITS},
        **more,
        "broken": [file.model_dump() for file in broken],
        "notes": [*index.notes, *more.get("notes", ())],
    }


def _training_facts(context: Context, shortlist: Shortlist) -> dict[str, Any]:
    """The section ``training`` of results.json."""
    task = task_of(context.study)
    bundle = task.read_bundle(context)
    _, more = task.facts(context)
    facts = {"backbone": bundle.backbone.model_dump(), "preprocessing": bundle.preprocessing.model_dump(), **more}
    if shortlist.gate is not None:
        # How often each group's second level runs.
        firings, groups = shortlist.gate.firings, context.study.groups
        fired = {group: sum(firing.fraction for firing in firings if group in firing.groups) for group in groups}
        facts["cascade"] = {"threshold": shortlist.gate.threshold, "fired": fired}
    return facts
