"""Deployments of classifiers as functions that run all of their engines, as a device would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import IMAGES, Bundle, role_of
from edgetl.artifacts.deployment import (
    Deployment,
    Gate,
    Shortlist,
    apply_second_level,
    fired_rows,
    merge_probabilities,
)
from edgetl.artifacts.files import read_json
from edgetl.stages.serving import Loaded, Service
from edgetl.stages.stage import Context

_SCHEDULE = 1000
"""Images after which the random order of a cascade's firings repeats; it is drawn before anything is timed."""


class ClassifierService(Service[Float32Array]):
    """Makes one probability per label, N x labels, of the probabilities of heads, N x (number of a head's classes)."""

    def __init__(self, bundle: Bundle, threshold: float | None) -> None:
        super().__init__(bundle.groups, {head.name: head.role for head in bundle.heads}, threshold)
        self._heads = {head.name: head for head in bundle.heads}

    def read(self, head: str, output: Float32Array) -> Float32Array:
        del head
        return output

    def merged(self, answers: Mapping[str, Float32Array]) -> Float32Array:
        return merge_probabilities(answers, self._heads, self.labels)

    def fires(self, group: str, first: Float32Array) -> BoolArray:
        return fired_rows(first, self.labels, self.groups[group], self.threshold)

    def refined(self, first: Float32Array, second: Sequence[tuple[str, BoolArray, Float32Array]]) -> Float32Array:
        return apply_second_level(first, self.labels, [(self._heads[name], rows, own) for name, rows, own in second])


def service(context: Context) -> ClassifierService:
    """The service of the study's trained heads and its chosen gate."""
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return ClassifierService(bundle, None if gate is None else gate.threshold)


def workloads(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int, batch: int = 1
) -> dict[str, Callable[[], object]]:
    """A function for each deployment that runs ``batch`` images through it at once; see `workload`."""
    gate, seed = read_json(context.run.shortlist, Shortlist).gate, context.study.seed + number
    return {title: workload(deployment, own, gate, seed, batch) for title, (deployment, own) in loaded.items()}


def image(context: Context, shape: tuple[int, ...]) -> Float32Array:
    """A random image of a shape: how long a classifier takes does not depend on the picture."""
    return np.random.default_rng(context.study.seed).random(shape, dtype=np.float32)


def workload(
    deployment: Deployment, loaded: Sequence[Loaded], gate: Gate | None, seed: int, batch: int = 1
) -> Callable[[], object]:
    """A function that runs a batch of random images through a deployment, all engines one after another.

    Random images would not fire a cascade's second level as real ones do. So each call draws what fires from
    ``gate.firings``: over all calls, every engine runs on as large a share of images as on validation.
    """
    shape = (batch, *loaded[0].engine.shapes[0][1:])
    images = {IMAGES: np.random.default_rng(seed).random(shape, dtype=np.float32)}
    if not deployment.gated:
        return lambda: [one.run(images) for one in loaded]
    second = {role_of(one.spec.heads[0]): one for one in loaded[1:]}
    assert gate is not None, "a gated deployment has a gate"
    fractions = np.array([firing.fraction for firing in gate.firings])
    # A generator of its own: the images' one has advanced by the batch's size, and batches must fire in one order.
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(fractions), size=_SCHEDULE, p=fractions / fractions.sum())
    schedule = cycle([gate.firings[position].groups for position in drawn])

    def infer() -> None:
        tensors = {**images, **loaded[0].run(images)}
        fired = Counter(group for _ in range(batch) for group in next(schedule))
        for group, number in fired.items():
            second[group].run(tensors, slice(number))

    return infer
