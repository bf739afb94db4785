"""What a study's guard judges by: mAP@0.5 of every deployment of detectors on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from edgetl.artifacts.boxes import BoxedImage
from edgetl.artifacts.deployment import GraphSpec, Shortlist, distinct
from edgetl.artifacts.detector import DetectionBundle
from edgetl.artifacts.estimate import Estimate
from edgetl.artifacts.files import read_json
from edgetl.measure.average_precision import drop, estimate
from edgetl.measure.matching import Matches, match
from edgetl.stages.detect.ending import ending_in_boxes
from edgetl.stages.detect.serving import service
from edgetl.stages.detect.validation import Validation
from edgetl.stages.judging import Loss, run_alone
from edgetl.stages.stage import Context

Array = npt.NDArray[np.float32]


class MeanPrecision:
    """A judge for all deployments of a study at once, by graphs with the raw outputs of all of their heads."""

    what = "mAP@0.5"

    def __init__(
        self,
        graphs: Sequence[onnx.ModelProto],
        context: Context,
        specs: Sequence[GraphSpec],
        samples: Sequence[BoxedImage],
        root: Path,
        bundle: DetectionBundle,
    ) -> None:
        """``specs``: what each of the graphs is, before it ends in boxes."""
        self._specs, self._samples, self._root, self._bundle = specs, samples, root, bundle
        self._service, self._suppression = service(context), context.study.detection.suppression
        self._deployments = distinct(read_json(context.run.shortlist, Shortlist).deployments)
        self._exact = self._matches(graphs)

    @property
    def images(self) -> int:
        return len(next(iter(self._exact.values())).objects)

    @property
    def exact(self) -> dict[str, Estimate]:
        return {name: estimate(matches) for name, matches in self._exact.items()}

    def losses(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, Loss]:
        found = self._matches(graphs)
        return {name: Loss(estimate(found[name]), *drop(exact, found[name])) for name, exact in self._exact.items()}

    def _matches(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, Matches]:
        """What every deployment finds, against what is there; files that do not decode are left out of all alike."""
        preprocessing = self._bundle.preprocessing
        images: list[BoxedImage] = []
        found: dict[str, list[Array]] = {one.name: [] for one in self._deployments}
        for rows, outputs in run_alone(self._ended(graphs), self._samples, self._root, preprocessing):
            here = [self._samples[row] for row in rows]
            images += here
            for one in self._deployments:
                found[one.name] += Validation(here, preprocessing).on_images(self._service.deployed(one, outputs))
        return {name: match(images, own, self._bundle.labels) for name, own in found.items()}

    def _ended(self, graphs: Sequence[onnx.ModelProto]) -> list[onnx.ModelProto]:
        """Boxes by ONNX's own operator: on ONNX Runtime it is the fastest form of the same."""
        return [
            ending_in_boxes(graph, spec, self._bundle, self._suppression)
            for graph, spec in zip(graphs, self._specs, strict=True)
        ]
