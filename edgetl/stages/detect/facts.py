"""The facts about data and training in the report of a detection study."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Evaluation
from edgetl.stages.detect.index import read_index
from edgetl.stages.stage import Context


def data_facts(context: Context, evaluation: Evaluation) -> dict[str, Any]:
    index, _ = read_index(context)
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    broken = (*index.broken, *bundle.broken, *evaluation.broken)
    faults = Counter(f"{fault.kind}: {fault.done}" for fault in index.faults)
    return {
        "format": context.study.data.format,
        "groups": {group: list(labels) for group, labels in context.study.groups.items()},
        "images": {split: len(index.split(split)) for split in SPLITS},
        "boxes": {split: sum(len(image.boxes) for image in index.split(split)) for split in SPLITS},
        "broken": [file.model_dump() for file in broken],
        "notes": [*index.notes, *(f"faults of annotations: {kind} ({count})" for kind, count in faults.items())],
    }


def training_facts(context: Context) -> dict[str, Any]:
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    return {
        "backbone": bundle.backbone.model_dump(),
        "preprocessing": bundle.preprocessing.model_dump(),
        "detectors": [head.model_dump() for head in bundle.heads],
    }
