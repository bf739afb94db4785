"""Average precision of a study's deployments on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import write_bytes
from edgetl.artifacts.results import Comparison
from edgetl.measure.average_precision import as_accuracy, mean_average_precision
from edgetl.measure.matching import Matches, match
from edgetl.measure.metrics import COMPUTATIONS, Computation
from edgetl.stages.detect.serving import Detections
from edgetl.stages.detect.validation import ValidationDetections, ValidationImages


class DetectorScoring:
    """Collects detections, K x 6 for each image, of every deployment."""

    def __init__(
        self, images: Sequence[BoxedImage], bundle: DetectionBundle, titles: Sequence[str], computation: Computation
    ) -> None:
        self._test, self._bundle, self._computation = images, bundle, computation
        self._rows: list[int] = []
        self._detections: dict[str, list[Float32Array]] = {title: [] for title in titles}

    def add(self, rows: Int64Array, answers: Mapping[str, Detections]) -> None:
        self._rows += rows.tolist()
        # By rows, not by position in the batch: files that do not decode leave gaps.
        here = ValidationImages([self._test[row] for row in rows], self._bundle.preprocessing)
        for title, detections in answers.items():
            self._detections[title] += here.on_images(detections)

    @property
    def images(self) -> int:
        return len(self._rows)

    def figures(self) -> dict[str, dict[str, Any]]:
        figures = {}
        for title, matches in self._matches.items():
            found = mean_average_precision(matches, self._bundle.groups)
            # Average precision is told of in any case; where it is the metric too, it is not computed twice.
            by_map50 = self._computation == COMPUTATIONS["mAP@0.5"]
            accuracy = as_accuracy(found) if by_map50 else self._computation.accuracy(matches, self._bundle.groups)
            figures[title] = {"accuracy": accuracy, "average_precision": found}
        return figures

    def comparisons(self) -> tuple[Comparison, ...]:
        return self._computation.compare(self._matches)

    def write(self, folder: Path) -> Path:
        path = folder / "detections.npz"
        write_bytes(path, ValidationDetections(np.array(self._rows, np.int64), self._detections).to_bytes())
        return path

    @cached_property
    def _matches(self) -> dict[str, Matches]:
        # Asked for when all images are there: matching costs seconds.
        images = [self._test[row] for row in self._rows]
        return {title: match(images, own, self._bundle.labels) for title, own in self._detections.items()}
