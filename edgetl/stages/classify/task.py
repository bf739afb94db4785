"""The task `classify`: one label for an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.data_index import DataIndex
from edgetl.artifacts.files import read_json
from edgetl.config import Study
from edgetl.stages.serving import Service
from edgetl.stages.stage import Context, Worker
from edgetl.stages.task import LoadedDeployments, Scoring, Task


class ClassifyTask:
    """Classification of images by top-1 accuracy."""

    name = "classify"

    def worker(self, stage: str) -> Worker:
        # One by one, so that a device without torch imports none that needs it.
        if stage == "index":
            from edgetl.stages.classify import index

            return index
        if stage == "finetune":
            from edgetl.stages.classify import finetune

            return finetune
        if stage == "search":
            from edgetl.stages.classify import search

            return search
        from edgetl.stages.classify import export

        return export

    def training_settings(self, study: Study) -> dict[str, Any]:
        # A flag can ask for quantization-aware training too: the bundle records it, and later stages read that.
        return study.training.model_dump(mode="json", exclude={"quantization_aware"})

    def export_settings(self, study: Study) -> dict[str, Any]:
        del study
        return {}

    def read_index(self, context: Context) -> tuple[DataIndex, Path]:
        from edgetl.stages.classify.index import read_index

        return read_index(context)

    def read_bundle(self, context: Context) -> Bundle:
        return read_json(context.run.bundle / "bundle.json", Bundle)

    def service(self, context: Context) -> Service[Float32Array]:
        from edgetl.stages.classify.serving import service

        return service(context)

    def workloads(
        self, context: Context, loaded: LoadedDeployments, number: int, batch: int = 1
    ) -> dict[str, Callable[[], object]]:
        from edgetl.stages.classify.serving import workloads

        return workloads(context, loaded, number, batch)

    def image(self, context: Context, shape: tuple[int, ...]) -> Float32Array:
        from edgetl.stages.classify.serving import image

        return image(context, shape)

    def scoring(self, context: Context, titles: Sequence[str]) -> Scoring:
        from edgetl.measure.metrics import COMPUTATIONS
        from edgetl.stages.classify.scoring import ClassifierScoring

        computation = COMPUTATIONS[context.study.decided_by.name]
        index, _ = self.read_index(context)
        return ClassifierScoring(index.test, self.read_bundle(context).groups, titles, computation)

    def facts(self, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"heads": [head.model_dump() for head in self.read_bundle(context).heads]}


CLASSIFY: Task = ClassifyTask()
