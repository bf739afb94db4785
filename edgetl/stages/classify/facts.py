"""The facts about data and training in the report of a classification study."""

from __future__ import annotations

from typing import Any

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import SPLITS, DataIndex
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Evaluation
from edgetl.stages.stage import Context


def data_facts(context: Context, evaluation: Evaluation) -> dict[str, Any]:
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


def training_facts(context: Context) -> dict[str, Any]:
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    return {
        "backbone": bundle.backbone.model_dump(),
        "preprocessing": bundle.preprocessing.model_dump(),
        "heads": [head.model_dump() for head in bundle.heads],
    }
