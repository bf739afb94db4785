"""Deployments of detectors as functions that run all of their engines, as a device would, to one list of boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import IMAGES, Preprocessing
from edgetl.artifacts.deployment import CASCADE, COMBINED, Deployment, Shortlist
from edgetl.artifacts.detector_bundle import DetectionBundle
from edgetl.artifacts.files import read_json
from edgetl.artifacts.predictions import listed_detections, merge_detections
from edgetl.config import NmsSettings
from edgetl.data.stream import to_input
from edgetl.stages.serving import Loaded
from edgetl.stages.stage import Context

DetectorFunction = Callable[[Float32Array], list[Float32Array]]
"""From images (N x 3 x H x W in [0, 1]) to K x 6 for each: box in pixels of the input, score, position of the label."""


class Service:
    """Turns the detections of a study's heads into those of its deployments."""

    def __init__(self, bundle: DetectionBundle, suppression: NmsSettings, threshold: float | None) -> None:
        """``threshold``: the score of a first level's object from which on its group's second level runs."""
        self._bundle, self._suppression, self._threshold = bundle, suppression, threshold
        position = {label: number for number, label in enumerate(bundle.labels)}
        self._numbers = {
            head.name: np.array([position[label] for label in head.classes], np.float32) for head in bundle.heads
        }
        self._roles = {head.name: head.role for head in bundle.heads}

    def predictor(self, deployment: Deployment, loaded: Sequence[Loaded]) -> DetectorFunction:
        """A function from images to the detections of a deployment, by its engines."""

        def together(images: Float32Array) -> list[Float32Array]:
            outputs: dict[str, Float32Array] = {}
            for one in loaded:
                outputs |= one.run({IMAGES: images})
            return self._all(outputs)

        def cascade(images: Float32Array) -> list[Float32Array]:
            tensors = {IMAGES: images, **loaded[0].run({IMAGES: images})}
            levels = {level.spec.heads[0]: level for level in loaded[1:]}

            def ask(name: str, fired: BoolArray) -> list[Float32Array]:
                # Engines take one image or more, so none is asked about no images.
                return self.named(name, levels[name].run(tensors, fired)[name]) if fired.any() else []

            second = {self._roles[name]: name for name in levels}
            return self.in_turn(self.named(COMBINED, tensors[COMBINED]), second, ask)

        return cascade if deployment.kind == CASCADE else together

    def deployed(self, deployment: Deployment, outputs: Mapping[str, Float32Array]) -> list[Float32Array]:
        """The detections of a deployment, from every head's outputs for every image.

        Args:
            outputs: N x M x 6 of each head; those of other deployments' heads are not read.
        """
        own = {name: outputs[name] for name in deployment.heads}
        if deployment.kind != CASCADE:
            return self._all(own)
        first = self.named(COMBINED, own.pop(COMBINED))
        second = {self._roles[name]: name for name in own}
        return self.in_turn(first, second, lambda name, fired: self.named(name, own[name][fired]))

    def _all(self, outputs: Mapping[str, Float32Array]) -> list[Float32Array]:
        """Detections of all heads together."""
        named = [self.named(name, output) for name, output in outputs.items()]
        return [self._merged(parts) for parts in zip(*named, strict=True)]

    def in_turn(
        self,
        first: Sequence[Float32Array],
        second: Mapping[str, str],
        ask: Callable[[str, BoolArray], Sequence[Float32Array]],
    ) -> list[Float32Array]:
        """A cascade's detections: where a group fires, its boxes are those of the second level.

        Args:
            first: the first level's detections in N images.
            second: each group's head.
            ask: from a head and the images that fired (N truth values) to its detections in those.
        """
        parts = [[one] for one in first]
        for group, name in second.items():
            fired, labels = self.fires(group, first), self._positions(group)
            for row, own in zip(np.flatnonzero(fired), ask(name, fired), strict=True):
                parts[row] = [*(part[~np.isin(part[:, 5], labels)] for part in parts[row]), own]
        return [self._merged(one) for one in parts]

    def named(self, head: str, output: Float32Array) -> list[Float32Array]:
        """A head's output, N x M x 6 filled up with empty rows, as K x 6 for each image; see `numbered`."""
        return [self.numbered(head, detections) for detections in listed_detections(output)]

    def numbered(self, head: str, detections: Float32Array) -> Float32Array:
        """Detections with the study's positions of labels in place of the head's."""
        result: Float32Array = detections.copy()
        result[:, 5] = self._numbers[head][detections[:, 5].astype(np.int64)]
        return result

    def fires(self, group: str, first: Sequence[Float32Array]) -> BoolArray:
        """In which images the first level finds an object of a group with at least the threshold's score."""
        assert self._threshold is not None, "a cascade has a gate"
        labels = self._positions(group)
        return np.array([bool((one[np.isin(one[:, 5], labels), 4] >= self._threshold).any()) for one in first])

    def _positions(self, group: str) -> list[int]:
        return [self._bundle.labels.index(label) for label in self._bundle.groups[group]]

    def _merged(self, parts: Sequence[Float32Array]) -> Float32Array:
        # No label is in two groups, so boxes of one group suppress none of another; only the number of all is bounded.
        return merge_detections(parts, self._suppression.iou_threshold, self._suppression.max_detections)


def service(context: Context) -> Service:
    """The service of the study's trained heads and its chosen gate."""
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return Service(bundle, context.study.detection.nms, None if gate is None else gate.threshold)


def preprocessing(context: Context) -> Preprocessing:
    """The preprocessing of the study's networks."""
    return read_json(context.run.bundle / "bundle.json", DetectionBundle).preprocessing


def answers(context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]]) -> dict[str, DetectorFunction]:
    """A function from images to detections for each deployment."""
    serve = service(context)
    return {title: serve.predictor(deployment, own) for title, (deployment, own) in loaded.items()}


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
