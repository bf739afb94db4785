"""The task `detect`: the boxes of all objects on an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgetl.arrays import Float32Array
from edgetl.artifacts.box_index import BoxIndex
from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.config import Study
from edgetl.stages.serving import Service
from edgetl.stages.stage import Context, Worker
from edgetl.stages.task import LoadedDeployments, Scoring, Task


class DetectTask:
    """Detection of objects by mean average precision."""

    name = "detect"

    def worker(self, stage: str) -> Worker:
        # One by one, so that a device without torch imports none that needs it.
        if stage == "index":
            from edgetl.stages.detect import index

            return index
        if stage == "finetune":
            from edgetl.stages.detect import finetune

            return finetune
        if stage == "search":
            from edgetl.stages.detect import search

            return search
        from edgetl.stages.detect import export

        return export

    def training_settings(self, study: Study) -> dict[str, Any]:
        # Suppression is written into graphs: it changes nothing in training.
        return study.detection.model_dump(mode="json", exclude={"nms"})

    def export_settings(self, study: Study) -> dict[str, Any]:
        return {"nms": study.detection.nms.model_dump(mode="json")}

    def read_index(self, context: Context) -> tuple[BoxIndex, Path]:
        from edgetl.stages.detect.index import read_index

        return read_index(context)

    def read_bundle(self, context: Context) -> DetectionBundle:
        return read_json(context.run.bundle / "bundle.json", DetectionBundle)

    def service(self, context: Context) -> Service[list[Float32Array]]:
        from edgetl.stages.detect.serving import service

        return service(context)

    def workloads(
        self, context: Context, loaded: LoadedDeployments, number: int, batch: int = 1
    ) -> dict[str, Callable[[], object]]:
        from edgetl.stages.detect.serving import workloads

        return workloads(context, loaded, number, batch)

    def image(self, context: Context, shape: tuple[int, ...]) -> Float32Array:
        from edgetl.stages.detect.serving import image

        return image(context, shape)

    def scoring(self, context: Context, titles: Sequence[str]) -> Scoring:
        from edgetl.measure.metrics import COMPUTATIONS
        from edgetl.stages.detect.scoring import DetectorScoring

        computation = COMPUTATIONS[context.study.decided_by.name]
        index, _ = self.read_index(context)
        return DetectorScoring(index.test, self.read_bundle(context), titles, computation)

    def facts(self, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
        index, _ = self.read_index(context)
        faults = Counter(f"{fault.kind}: {fault.done}" for fault in index.faults)
        data = {
            "boxes": {split: sum(len(image.boxes) for image in index.split(split)) for split in SPLITS},
            "notes": [f"faults of annotations: {kind} ({count})" for kind, count in faults.items()],
        }
        return data, {"detectors": [head.model_dump() for head in self.read_bundle(context).heads]}


DETECT: Task = DetectTask()
