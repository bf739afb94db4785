"""The evaluators that accuracy control asks: mAP@0.5 of a study's deployments, or of the outputs of a plain graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.deployment import GraphSpec, Shortlist, distinct
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.predictions import listed_detections
from edgetl.data.labelled_boxes import labelled_boxes
from edgetl.data.listing import listed
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import labels_of
from edgetl.graph.outputs import nms_settings_of
from edgetl.graph.parity import Outputs
from edgetl.measure.average_precision import map50_drop, map50_estimate
from edgetl.measure.matching import Matches, match
from edgetl.stages.accuracy_evaluator import AccuracyDrop, run_alone
from edgetl.stages.detect.index import fault_lines
from edgetl.stages.detect.postprocessing import with_postprocessing
from edgetl.stages.detect.serving import service
from edgetl.stages.detect.validation import ValidationImages, with_boxes_of
from edgetl.stages.stage import Context, ProgressReporter

DetectionsOf = Callable[[Outputs], Mapping[str, Sequence[Float32Array]]]
"""From the outputs of all graphs to detections in each image, in pixels of the input, by deployment or output."""


class DetectorEvaluator:
    """Compares detectors in another precision with the float ones, by mAP@0.5."""

    metric = "mAP@0.5"

    def __init__(
        self,
        graphs: Sequence[onnx.ModelProto],
        samples: Sequence[BoxedImage],
        root: Path,
        preprocessing: Preprocessing,
        labels: Mapping[str, Sequence[str]],
        boxes: DetectionsOf,
    ) -> None:
        """``graphs`` end in boxes. ``labels``: those that each deployment or output of ``boxes`` answers for."""
        self._samples, self._root, self._preprocessing = samples, root, preprocessing
        self._labels, self._boxes = labels, boxes
        self._truth = {name: with_boxes_of(own, samples) for name, own in labels.items()}
        self._exact = self._matches(graphs)

    @property
    def images(self) -> int:
        return len(next(iter(self._exact.values())).objects)

    @property
    def fp32(self) -> dict[str, AccuracyEstimate]:
        return {name: map50_estimate(matches) for name, matches in self._exact.items()}

    def drops(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, AccuracyDrop]:
        others = self._matches(graphs)
        return {
            name: AccuracyDrop(map50_estimate(others[name]), *map50_drop(exact, others[name]))
            for name, exact in self._exact.items()
        }

    def _matches(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, Matches]:
        """All detections matched with the labelled boxes; files that do not decode are left out of all alike."""
        decoded: list[int] = []
        detections: dict[str, list[Float32Array]] = {name: [] for name in self._labels}
        for rows, outputs in run_alone(graphs, self._samples, self._root, self._preprocessing):
            here = ValidationImages([self._samples[row] for row in rows], self._preprocessing)
            for name, own in self._boxes(outputs).items():
                detections[name] += here.on_images(own)
            decoded += rows.tolist()
        return {
            name: match([self._truth[name][row] for row in decoded], detections[name], own)
            for name, own in self._labels.items()
        }


class DetectorDeploymentEvaluator(DetectorEvaluator):
    """The evaluator of all deployments of a study at once, by graphs with the raw outputs of all of their heads."""

    def __init__(
        self,
        graphs: Sequence[onnx.ModelProto],
        context: Context,
        specs: Sequence[GraphSpec],
        samples: Sequence[BoxedImage],
        root: Path,
        bundle: DetectionBundle,
    ) -> None:
        """``specs``: the heads and inputs of each of the graphs, which do not end in boxes yet."""
        # Before the base class, whose constructor runs the graphs.
        self._specs, self._bundle, self._suppression = specs, bundle, context.study.detection.nms
        serve = service(context)
        deployments = distinct(read_json(context.run.shortlist, Shortlist).deployments)
        labels = {one.name: bundle.labels for one in deployments}

        def boxes(outputs: Outputs) -> dict[str, list[Float32Array]]:
            return {one.name: serve.deployed(one, outputs) for one in deployments}

        super().__init__(graphs, samples, root, bundle.preprocessing, labels, boxes)

    def _matches(self, graphs: Sequence[onnx.ModelProto]) -> dict[str, Matches]:
        # By ONNX's own operator, for TensorRT's graphs too: its loop gives the same boxes, and is slower here.
        pairs = zip(graphs, self._specs, strict=True)
        return super()._matches([with_postprocessing(*pair, self._bundle, self._suppression) for pair in pairs])


def evaluator_of_boxes(
    model: onnx.ModelProto, source: Path, preprocessing: Preprocessing, reporter: ProgressReporter
) -> DetectorEvaluator:
    """The evaluator of the outputs of a plain graph that are detections, each by its own labels.

    Args:
        source: annotated images; see `labelled_boxes`.

    Raises:
        EdgetlError: the graph does not suppress overlapping boxes itself or does not name its labels, the images are
            not to be had, or have no object of an output's labels.
    """
    known = labels_of(model)
    labels = {output: known.get(output, ()) for output in nms_settings_of(model, "the graph")}
    data = labelled_boxes(source, tuple(dict.fromkeys(label for own in labels.values() for label in own)))
    left_out = (f"left out {one.path}: {one.reason}" for one in data.broken)
    for line in (*fault_lines(data.faults), *data.notes, *left_out):
        reporter.message(line)
    there = {box.label for image in data.images for box in image.boxes if not box.ignored}
    for output, own in labels.items():
        if there.isdisjoint(own):
            raise EdgetlError(
                f"the {len(data.images)} images of {source} have no object that output {output!r} could find, so there "
                f"is no mAP; expected boxes of {listed(own)}"
            )

    def boxes(outputs: Outputs) -> dict[str, list[Float32Array]]:
        return {name: listed_detections(outputs[name]) for name in labels}

    return DetectorEvaluator([model], data.images, data.root, preprocessing, labels, boxes)
