"""What a study's guard judges by: mAP@0.5 of every deployment of detectors on the validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.boxes import BoxedImage
from edgetl.artifacts.deployment import Deployment, distinct
from edgetl.artifacts.detector import DetectionBundle
from edgetl.artifacts.estimate import Estimate
from edgetl.config import Suppression
from edgetl.graph.detections import RawHead, with_detections
from edgetl.measure.average_precision import drop, estimate
from edgetl.measure.matching import Matches, match
from edgetl.stages.detect.serving import Service
from edgetl.stages.detect.validation import Validation
from edgetl.stages.judging import Loss, run_alone

Array = npt.NDArray[np.float32]


class MeanPrecision:
    """A judge for all deployments of a study at once: graphs have the raw outputs of all of their heads, so an image
    goes through once. Deployments of the same heads find the same; the first of them stands for all."""

    def __init__(
        self,
        whole: onnx.ModelProto,
        samples: Sequence[BoxedImage],
        root: Path,
        bundle: DetectionBundle,
        deployments: Sequence[Deployment],
        service: Service,
        suppression: Suppression,
    ) -> None:
        self._samples, self._root, self._bundle, self._service = samples, root, bundle, service
        self._suppression = suppression
        self._deployments = distinct(deployments)
        wanted = {name for one in self._deployments for name in one.heads}
        self._heads = [
            RawHead(head.name, head.classes, head.scales, head.raws) for head in bundle.heads if head.name in wanted
        ]
        self._exact = self._matches(whole)

    @property
    def images(self) -> int:
        return len(next(iter(self._exact.values())).objects)

    @property
    def exact(self) -> dict[str, Estimate]:
        return {name: estimate(matches) for name, matches in self._exact.items()}

    def losses(self, model: onnx.ModelProto) -> dict[str, Loss]:
        found = self._matches(model)
        return {name: Loss(estimate(found[name]), *drop(exact, found[name])) for name, exact in self._exact.items()}

    def _matches(self, model: onnx.ModelProto) -> dict[str, Matches]:
        """What every deployment finds, against what is there; files that do not decode are left out of all alike."""
        preprocessing = self._bundle.preprocessing
        graph = with_detections(model, self._heads, preprocessing, self._suppression)
        images: list[BoxedImage] = []
        found: dict[str, list[Array]] = {one.name: [] for one in self._deployments}
        for rows, outputs in run_alone(graph, self._samples, self._root, preprocessing):
            here = [self._samples[row] for row in rows]
            images += here
            for name, boxes in self._boxes(outputs).items():
                found[name] += Validation(here, preprocessing).on_images(boxes)
        return {name: match(images, own, self._bundle.labels) for name, own in found.items()}

    def _boxes(self, outputs: Mapping[str, Array]) -> dict[str, list[Array]]:
        return {one.name: self._service.deployed(one, outputs) for one in self._deployments}
