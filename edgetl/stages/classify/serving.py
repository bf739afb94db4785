"""A deployment of classifiers as one thing: all of its engines asked as a device would ask them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
"""Images after which the firing of a cascade repeats itself."""


def predictor(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None
) -> Callable[[Float32Array], Float32Array]:
    """A function from images (N x 3 x S x S in [0, 1]) to one probability per label, N x labels."""
    heads = {head.name: head for head in bundle.heads}

    def together(images: Float32Array) -> Float32Array:
        outputs = [one.run({IMAGES: images}) for one in loaded]
        return merge_probabilities(
            {name: value for each in outputs for name, value in each.items()}, heads, bundle.labels
        )

    def in_turn(images: Float32Array) -> Float32Array:
        tensors = {IMAGES: images, **loaded[0].run({IMAGES: images})}
        combined = tensors[COMBINED]
        said = []
        for one in loaded[1:]:
            head = heads[one.spec.heads[0]]
            rows = fired_rows(combined, bundle.labels, bundle.groups[head.role], _threshold(gate))
            said.append((head, rows, one.run(tensors, rows)[head.name] if rows.any() else combined[:0]))
        return apply_second_level(combined, bundle.labels, said)

    return in_turn if deployment.kind == CASCADE else together


def _threshold(gate: Gate | None) -> float:
    assert gate is not None, "a cascade has a gate"
    return gate.threshold


def preprocessing(context: Context) -> Preprocessing:
    """That of the study's networks."""
    return read_json(context.run.bundle / "bundle.json", Bundle).preprocessing


def answers(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]]
) -> dict[str, Callable[[Float32Array], Float32Array]]:
    """For each deployment a function from images to probabilities; see `predictor`."""
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    gate = read_json(context.run.shortlist, Shortlist).gate
    return {title: predictor(deployment, own, bundle, gate) for title, (deployment, own) in loaded.items()}


def workloads(
    context: Context, loaded: Mapping[str, tuple[Deployment, Sequence[Loaded]]], number: int, batch: int = 1
) -> dict[str, Callable[[], object]]:
    """A call for each deployment that takes ``batch`` images through it at once; see `workload`."""
    bundle = read_json(context.run.bundle / "bundle.json", Bundle)
    gate, seed = read_json(context.run.shortlist, Shortlist).gate, context.study.seed + number
    return {title: workload(deployment, own, bundle, gate, seed, batch) for title, (deployment, own) in loaded.items()}


def image(context: Context, shape: tuple[int, ...]) -> Float32Array:
    """One that stands for all: how long a classifier takes does not depend on what is to be seen."""
    return np.random.default_rng(context.study.seed).random(shape, dtype=np.float32)


def workload(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None, seed: int, batch: int = 1
) -> Callable[[], object]:
    """A call that takes a batch of images through a deployment: all engines one after another.

    Of a cascade's second level those engines run that would for images of the validation set, on as many of the batch;
    which images those are changes from call to call, so that all calls together fire as often as the data do.
    """
    shape = (batch, *loaded[0].engine.shapes[0][1:])
    images = {IMAGES: np.random.default_rng(seed).random(shape, dtype=np.float32)}
    if deployment.kind != CASCADE:
        return lambda: [one.run(images) for one in loaded]
    heads = {head.name: head for head in bundle.heads}
    second = {heads[one.spec.heads[0]].role: one for one in loaded[1:]}
    schedule = _schedule(gate, np.random.default_rng(seed))  # of its own: the same for every batch

    def infer() -> None:
        tensors = {**images, **loaded[0].run(images)}
        fired = Counter(group for _ in range(batch) for group in next(schedule))
        for group, number in fired.items():
            second[group].run(tensors, slice(number))

    return infer


def _schedule(gate: Gate | None, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """The groups that fire, image after image, as often as on validation."""
    assert gate is not None, "a cascade has a gate"
    shares = np.array([firing.fraction for firing in gate.firings])
    drawn = rng.choice(len(shares), size=_SCHEDULE, p=shares / shares.sum())
    return cycle([gate.firings[position].groups for position in drawn])
