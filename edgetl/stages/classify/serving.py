"""Deployments of classifiers as functions that run all of their engines, as a device would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, Bundle, Preprocessing
from edgetl.artifacts.deployment import (
    CASCADE,
    COMBINED,
    Deployment,
    Gate,
    Shortlist,
    apply_second_level,
    fired_rows,
    merge_probabilities,
)
from edgetl.artifacts.files import read_json
from edgetl.stages.serving import Loaded
from edgetl.stages.stage import Context

_SCHEDULE = 1000
"""Images after which the random order of a cascade's firings repeats; it is drawn before anything is timed."""


def predictor(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None
) -> Callable[[Float32Array], Float32Array]:
    """A function from images (N x 3 x S x S in [0, 1]) to one probability per label, N x labels."""
    heads = {head.name: head for head in bundle.heads}

    def together(images: Float32Array) -> Float32Array:
        outputs: dict[str, Float32Array] = {}
        for one in loaded:
            outputs |= one.run({IMAGES: images})
        return merge_probabilities(outputs, heads, bundle.labels)

    def in_turn(images: Float32Array) -> Float32Array:
        assert gate is not None, "a cascade has a gate"
        tensors = {IMAGES: images, **loaded[0].run({IMAGES: images})}
        combined, second = tensors[COMBINED], []
        for one in loaded[1:]:
            head = heads[one.spec.heads[0]]
            rows = fired_rows(combined, bundle.labels, bundle.groups[head.role], gate.threshold)
            # Engines take one image or more, so none is asked about no images: an empty slice stands for its answer.
            second.append((head, rows, one.run(tensors, rows)[head.name] if rows.any() else combined[:0]))
        return apply_second_level(combined, bundle.labels, second)

    return in_turn if deployment.kind == CASCADE else together


def preprocessing(context: Context) -> Preprocessing:
    """The preprocessing of the study's networks."""
    return read_json(context.run.bundle / "bundle.json", Bundle).preprocessing


def answers(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]]
) -> dict[str, Callable[[Float32Array], Float32Array]]:
    """A function from images to probabilities for each deployment; see `predictor`."""
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return {title: predictor(deployment, own, bundle, gate) for title, (deployment, own) in loaded.items()}


def workloads(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int, batch: int = 1
) -> dict[str, Callable[[], object]]:
    """A function for each deployment that runs ``batch`` images through it at once; see `workload`."""
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    gate, seed = read_json(context.run.shortlist, Shortlist).gate, context.study.seed + number
    return {title: workload(deployment, own, bundle, gate, seed, batch) for title, (deployment, own) in loaded.items()}


def image(context: Context, shape: tuple[int, ...]) -> Float32Array:
    """A random image of a shape: how long a classifier takes does not depend on the picture."""
    return np.random.default_rng(context.study.seed).random(shape, dtype=np.float32)


def workload(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None, seed: int, batch: int = 1
) -> Callable[[], object]:
    """A function that runs a batch of random images through a deployment, all engines one after another.

    Random images would not fire a cascade's second level as real ones do. So each call draws what fires from
    ``gate.firings``: over all calls, every engine runs on as large a share of images as on validation.
    """
    shape = (batch, *loaded[0].engine.shapes[0][1:])
    images = {IMAGES: np.random.default_rng(seed).random(shape, dtype=np.float32)}
    if deployment.kind != CASCADE:
        return lambda: [one.run(images) for one in loaded]
    heads = {head.name: head for head in bundle.heads}
    second = {heads[one.spec.heads[0]].role: one for one in loaded[1:]}
    assert gate is not None, "a cascade has a gate"
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
