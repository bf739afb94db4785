"""Deployments of detectors as functions that run all of their engines, as a device would, to one list of boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.deployment import Deployment, Shortlist
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.artifacts.predictions import listed_detections, merge_detections
from edgetl.config import NmsSettings
from edgetl.data.stream import to_input
from edgetl.stages.serving import Loaded, Service
from edgetl.stages.stage import Context

Detections = list[Float32Array]
"""K x 6 for each image: box in pixels of the input, score, position of the label."""


class DetectorService(Service[Detections]):
    """Makes one list of objects of the detections of heads, N x M x 6 filled up with empty rows."""

    def __init__(self, bundle: DetectionBundle, nms: NmsSettings, threshold: float | None) -> None:
        """``threshold``: the score of a first level's object from which on its group's second level runs."""
        super().__init__(bundle.groups, {head.name: head.role for head in bundle.heads}, threshold)
        self._nms = nms
        position = {label: number for number, label in enumerate(self.labels)}
        self._numbers = {
            head.name: np.array([position[label] for label in head.classes], np.float32) for head in bundle.heads
        }

    def read(self, head: str, output: Float32Array) -> Detections:
        return [self.numbered(head, detections) for detections in listed_detections(output)]

    def numbered(self, head: str, detections: Float32Array) -> Float32Array:
        """Detections with the study's positions of labels in place of the head's."""
        result: Float32Array = detections.copy()
        result[:, 5] = self._numbers[head][detections[:, 5].astype(np.int64)]
        return result

    def merged(self, answers: Mapping[str, Detections]) -> Detections:
        return [self._together(parts) for parts in zip(*answers.values(), strict=True)]

    def fires(self, group: str, first: Detections) -> BoolArray:
        """In which images the first level finds an object of the group with at least the threshold's score."""
        own = self._positions(group)
        return np.array([bool((one[np.isin(one[:, 5], own), 4] >= self.threshold).any()) for one in first])

    def refined(self, first: Detections, second: Sequence[tuple[str, BoolArray, Detections]]) -> Detections:
        parts = [[one] for one in first]
        for name, fired, answer in second:
            labels = self._positions(self.roles[name])
            for row, own in zip(np.flatnonzero(fired), answer, strict=True):
                parts[row] = [*(part[~np.isin(part[:, 5], labels)] for part in parts[row]), own]
        return [self._together(one) for one in parts]

    def _positions(self, group: str) -> list[int]:
        return [self.labels.index(label) for label in self.groups[group]]

    def _together(self, parts: Sequence[Float32Array]) -> Float32Array:
        # No label is in two groups, so boxes of one group suppress none of another; only the number of all is bounded.
        return merge_detections(parts, self._nms.iou_threshold, self._nms.max_detections)


def service(context: Context) -> DetectorService:
    """The service of the study's trained heads and its chosen gate."""
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return DetectorService(bundle, context.study.detection.nms, None if gate is None else gate.threshold)


def workloads(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int, batch: int = 1
) -> dict[str, Callable[[], object]]:
    """A function for each deployment that runs ``batch`` images through its engines, to lists of boxes.

    The images are real ones of the validation set, in an order that depends on ``number``: how long suppression takes,
    and whether a cascade's second level runs, depends on what is on them.
    """
    samples = np.load(context.run.bundle / "samples.npy", allow_pickle=False)
    order = np.random.default_rng(context.study.seed + number).permutation(len(samples))
    # Wrapped around, so that the last batch is as large as the others: a smaller one would be timed as a full one.
    batches = (order.take(range(start, start + batch), mode="wrap") for start in range(0, len(order), batch))
    images = [to_input(samples[positions]) for positions in batches]
    serve = service(context)

    def call(deployment: Deployment, engines: Sequence[Loaded]) -> Callable[[], object]:
        predict, following = serve.predictor(deployment, engines), cycle(images)
        return lambda: predict(next(following))

    return {title: call(deployment, engines) for title, (deployment, engines) in loaded.items()}


def image(context: Context, shape: tuple[int, ...]) -> Float32Array:
    """An image of the validation set: suppression takes as long as on a real one."""
    del shape  # those of the samples fit the network already
    return to_input(np.load(context.run.bundle / "samples.npy", allow_pickle=False)[:1])
