"""A deployment as one thing: all of its engines loaded, and asked as a device would ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.bundle import IMAGES, Bundle
from edgetl.artifacts.deployment import CASCADE, COMBINED, Deployment, Gate, GraphSpec, Rows, fires, merge, refine
from edgetl.engine.runtime import Engine, load_engine

Array = npt.NDArray[np.float32]

_SCHEDULE = 1000
"""Images after which the firing of a cascade repeats itself."""


@dataclass(frozen=True)
class Loaded:
    """An engine and the graph that it was built from."""

    spec: GraphSpec
    engine: Engine

    def run(self, tensors: Mapping[str, Array], rows: Rows | slice = slice(None)) -> dict[str, Array]:
        """Outputs by name, for the images of some rows."""
        return self.engine.infer(*(tensors[name][rows] for name in self.spec.inputs))


def load(wanted: Mapping[str, tuple[Deployment, Sequence[Path]]], threads: int) -> dict[str, tuple[Loaded, ...]]:
    """All engines of deployments, by title, in the order of their graphs.

    Trees of ``specialised`` have engines in common: each is in memory once, which is scarce on a device.
    """
    paths = dict.fromkeys(path for _, engines in wanted.values() for path in engines)
    loaded = {path: load_engine(path, threads) for path in paths}
    return {
        title: tuple(Loaded(spec, loaded[path]) for spec, path in zip(deployment.graphs, engines, strict=True))
        for title, (deployment, engines) in wanted.items()
    }


def predictor(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None
) -> Callable[[Array], Array]:
    """A function from images (N x 3 x S x S in [0, 1]) to one probability per label, N x labels."""
    heads = {head.name: head for head in bundle.heads}

    def together(images: Array) -> Array:
        outputs = [one.run({IMAGES: images}) for one in loaded]
        return merge({name: value for each in outputs for name, value in each.items()}, heads, bundle.labels)

    def in_turn(images: Array) -> Array:
        tensors = {IMAGES: images, **loaded[0].run({IMAGES: images})}
        combined = tensors[COMBINED]
        said = []
        for one in loaded[1:]:
            head = heads[one.spec.heads[0]]
            rows = fires(combined, bundle.labels, bundle.groups[head.role], _threshold(gate))
            said.append((head, rows, one.run(tensors, rows)[head.name] if rows.any() else combined[:0]))
        return refine(combined, bundle.labels, said)

    return in_turn if deployment.kind == CASCADE else together


def _threshold(gate: Gate | None) -> float:
    assert gate is not None, "a cascade has a gate"
    return gate.threshold


def workload(
    deployment: Deployment, loaded: Sequence[Loaded], bundle: Bundle, gate: Gate | None, seed: int
) -> Callable[[], object]:
    """A call that takes one image through a deployment: all engines one after another, batch 1.

    Of a cascade's second level those engines run that would for one image of the validation set; which image that
    is changes from call to call, so that all calls together fire as often as the data do.
    """
    rng = np.random.default_rng(seed)
    image = {IMAGES: rng.random(loaded[0].engine.shapes[0], dtype=np.float32)}
    if deployment.kind != CASCADE:
        return lambda: [one.run(image) for one in loaded]
    heads = {head.name: head for head in bundle.heads}
    second = {heads[one.spec.heads[0]].role: one for one in loaded[1:]}
    schedule = _schedule(gate, rng)

    def infer() -> None:
        tensors = {**image, **loaded[0].run(image)}
        for group in next(schedule):
            second[group].run(tensors)

    return infer


def _schedule(gate: Gate | None, rng: np.random.Generator) -> Iterator[tuple[str, ...]]:
    """The groups that fire, image after image, as often as on validation."""
    assert gate is not None, "a cascade has a gate"
    shares = np.array([firing.share for firing in gate.firings])
    drawn = rng.choice(len(shares), size=_SCHEDULE, p=shares / shares.sum())
    return cycle([gate.firings[position].groups for position in drawn])
