"""A deployment of detectors as one thing: all of its engines asked as a device would ask them, one list of boxes."""

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
    """How detections of a study's heads become those of its deployments."""

    def __init__(self, bundle: DetectionBundle, suppression: NmsSettings, threshold: float | None) -> None:
        """``threshold``: how sure a cascade's first level has to be of a group before its second one runs."""
        self._bundle, self._suppression, self._threshold = bundle, suppression, threshold
        position = {label: number for number, label in enumerate(bundle.labels)}
        self._numbers = {
            head.name: np.array([position[label] for label in head.classes], np.float32) for head in bundle.heads
        }
        self._roles = {head.name: head.role for head in bundle.heads}

    def predictor(self, deployment: Deployment, loaded: Sequence[Loaded]) -> DetectorFunction:
        if deployment.kind == CASCADE:
            return lambda images: self._cascade(loaded, images)
        return lambda images: self._together(loaded, images)

    def _together(self, loaded: Sequence[Loaded], images: Float32Array) -> list[Float32Array]:
        outputs: dict[str, Float32Array] = {}
        for one in loaded:
            outputs |= one.run({IMAGES: images})
        return self._all(outputs)

    def _cascade(self, loaded: Sequence[Loaded], images: Float32Array) -> list[Float32Array]:
        first, *second = loaded
        tensors = {IMAGES: images, **first.run({IMAGES: images})}
        levels = {level.spec.heads[0]: level for level in second}

        def ask(name: str, fired: BoolArray) -> list[Float32Array]:
            return self.named(name, levels[name].run(tensors, fired)[name]) if fired.any() else []

        return self.in_turn(self.named(COMBINED, tensors[COMBINED]), {self._roles[name]: name for name in levels}, ask)

    def deployed(self, deployment: Deployment, outputs: Mapping[str, Float32Array]) -> list[Float32Array]:
        """What a deployment finds, where what every head says of every image is known.

        Args:
            outputs: N x M x 6 of each head, those of other deployments among them.
        """
        own = {name: outputs[name] for name in deployment.heads}
        if deployment.kind != CASCADE:
            return self._all(own)
        found = self.named(COMBINED, own.pop(COMBINED))
        return self.in_turn(
            found, {self._roles[name]: name for name in own}, lambda name, fired: self.named(name, own[name][fired])
        )

    def _all(self, outputs: Mapping[str, Float32Array]) -> list[Float32Array]:
        """Boxes of all heads together."""
        named = [self.named(name, output) for name, output in outputs.items()]
        return [self._merged(parts) for parts in zip(*named, strict=True)]

    def in_turn(
        self,
        found: Sequence[Float32Array],
        second: Mapping[str, str],
        ask: Callable[[str, BoolArray], Sequence[Float32Array]],
    ) -> list[Float32Array]:
        """A cascade's boxes: where the first level finds a group, that group's are the second level's.

        Args:
            found: what the first level says of N images.
            second: each group's head.
            ask: from a head and the images that fired (N truth values) to what it says of those.
        """
        parts = [[one] for one in found]
        for group, name in second.items():
            fired = self.fires(group, found)
            for row, own in zip(np.flatnonzero(fired), ask(name, fired), strict=True):
                parts[row] = [*self._without(group, parts[row]), own]
        return [self._merged(one) for one in parts]

    def named(self, head: str, output: Float32Array) -> list[Float32Array]:
        """A head's detections, N x M x 6 filled up with empty ones, as lists of the study's labels."""
        return [self.numbered(head, found) for found in listed_detections(output)]

    def numbered(self, head: str, found: Float32Array) -> Float32Array:
        """Detections with the study's positions of labels in place of the head's."""
        result: Float32Array = found.copy()
        result[:, 5] = self._numbers[head][found[:, 5].astype(np.int64)]
        return result

    def fires(self, group: str, found: Sequence[Float32Array]) -> BoolArray:
        """In which images the first level is sure enough of an object of a group."""
        assert self._threshold is not None, "a cascade has a gate"
        own = self._of(group)
        return np.array([bool((one[np.isin(one[:, 5], own), 4] >= self._threshold).any()) for one in found])

    def _without(self, group: str, parts: Sequence[Float32Array]) -> list[Float32Array]:
        own = self._of(group)
        return [part[~np.isin(part[:, 5], own)] for part in parts]

    def _of(self, group: str) -> list[int]:
        return [self._bundle.labels.index(label) for label in self._bundle.groups[group]]

    def _merged(self, parts: Sequence[Float32Array]) -> Float32Array:
        return merge_detections(parts, self._suppression.iou_threshold, self._suppression.max_detections)


def service(context: Context) -> Service:
    """That of the study's run directory."""
    bundle = read_json(context.run.bundle / "bundle.json", DetectionBundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return Service(bundle, context.study.detection.nms, None if gate is None else gate.threshold)


def preprocessing(context: Context) -> Preprocessing:
    """That of the study's networks."""
    return read_json(context.run.bundle / "bundle.json", DetectionBundle).preprocessing


def answers(context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]]) -> dict[str, DetectorFunction]:
    """For each deployment a function from images to boxes."""
    serve = service(context)
    return {title: serve.predictor(deployment, own) for title, (deployment, own) in loaded.items()}


def workloads(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int, batch: int = 1
) -> dict[str, Callable[[], object]]:
    """A call for each deployment that takes ``batch`` images through its engines one after another, to lists of boxes.

    The images are some of the validation set, in an order of their own each time: how long suppression takes, and
    whether a cascade's second level runs, depends on what is to be seen.
    """
    samples = np.load(context.run.bundle / "samples.npy", allow_pickle=False)
    order = np.random.default_rng(context.study.seed + number).permutation(len(samples))
    batches = (order.take(range(start, start + batch), mode="wrap") for start in range(0, len(order), batch))
    images = [to_input(samples[positions]) for positions in batches]
    serve = service(context)

    def call(deployment: Deployment, engines: Sequence[Loaded]) -> Callable[[], object]:
        predict, following = serve.predictor(deployment, engines), cycle(images)
        return lambda: predict(next(following))

    return {title: call(deployment, engines) for title, (deployment, engines) in loaded.items()}


def image(context: Context, shape: tuple[int, ...]) -> Float32Array:
    """One of the validation set."""
    del shape
    return to_input(np.load(context.run.bundle / "samples.npy", allow_pickle=False)[:1])
