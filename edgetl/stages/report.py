"""Measurements to verdict: results.json and report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.deployment import Shortlist
from edgetl.artifacts.files import read_json, write_bytes, write_json
from edgetl.artifacts.index import SPLITS, DataIndex
from edgetl.artifacts.results import Evaluation, Measured, Profile, Results
from edgetl.report.html import render_html
from edgetl.report.verdict import decide
from edgetl.stages.stage import Context


def surroundings(context: Context) -> dict[str, Any]:
    del context
    return {}


def work(context: Context) -> list[Path]:
    evaluation = read_json(context.run.measurements / "accuracy.json", Evaluation)
    profile = read_json(context.run.measurements / "latency.json", Profile)
    measured = _join(evaluation, profile)
    comparisons = (*evaluation.comparisons, *profile.comparisons)
    shortlist = read_json(context.run.shortlist, Shortlist)
    budget = context.study.budget
    results = Results(
        study=context.study.name,
        environment=profile.environment,
        data=_data_facts(context, evaluation),
        training=_training_facts(context, shortlist),
        budget={key: value for key, value in budget.model_dump().items() if value is not None},
        deployments=measured,
        comparisons=comparisons,
        trees=shortlist.trees,
        verdict=decide(measured, comparisons, budget),
    )
    page = render_html(results)
    write_json(context.run.results, results)
    write_bytes(context.run.report, page.encode())
    return [context.run.results, context.run.report]


def _join(evaluation: Evaluation, profile: Profile) -> tuple[Measured, ...]:
    accuracy = {one.title: one.accuracy for one in evaluation.deployments}
    return tuple(one.model_copy(update={"accuracy": accuracy[one.title]}) for one in profile.deployments)


def _data_facts(context: Context, evaluation: Evaluation) -> dict[str, Any]:
    index = read_json(context.run.index, DataIndex)
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    broken = (*index.broken, *bundle.broken, *evaluation.broken)
    return {
        "format": context.study.data.format,
        "groups": {group: list(labels) for group, labels in context.study.groups.items()},
        "images": {split: len(index.split(split)) for split in SPLITS},
        "broken": [file.model_dump() for file in broken],
        "notes": list(index.notes),
    }


def _training_facts(context: Context, shortlist: Shortlist) -> dict[str, Any]:
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    facts = {
        "backbone": bundle.backbone.model_dump(),
        "preprocessing": bundle.preprocessing.model_dump(),
        "heads": [head.model_dump() for head in bundle.heads],
    }
    if shortlist.gate is not None:
        fired = {
            group: sum(firing.share for firing in shortlist.gate.firings if group in firing.groups)
            for group in bundle.groups
        }
        facts["cascade"] = {"threshold": shortlist.gate.threshold, "fired": fired}
    return facts
