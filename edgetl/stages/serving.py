"""Loads the engines of deployments, runs them, and makes one answer of the outputs of all their heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import IMAGES
from edgetl.artifacts.deployment import Deployment, GraphSpec
from edgetl.config import COMBINED
from edgetl.engine.nvidia.timing_cache import cache_folder
from edgetl.engine.runtime import Engine, RunOptions, load_engine
from edgetl.stages.stage import Context

AnswerT = TypeVar("AnswerT")
"""The answer to N images: probabilities (N x labels), or the objects found in each image."""

Groups = Mapping[str, Sequence[str]]

DeploymentEngines = Mapping[str, tuple[Deployment, Sequence[Path]]]
"""Deployments by title, with the files of their engines."""


@dataclass(frozen=True)
class Loaded:
    """An engine and the graph that it was built from."""

    spec: GraphSpec
    engine: Engine

    def run(
        self, tensors: Mapping[str, Float32Array], rows: BoolArray | slice = slice(None)
    ) -> dict[str, Float32Array]:
        """The outputs by name, for the images of some rows."""
        return self.engine.infer(*(tensors[name][rows] for name in self.spec.inputs))


def run_options(context: Context, threads: int) -> RunOptions:
    """The options to run a study's engines with; what TensorRT-RTX compiles on the device is kept from run to run."""
    settings = context.study.engine
    return RunOptions(
        threads=threads,
        cuda_graph=settings.cuda_graph,
        scratch="study" if settings.share_scratch else None,
        runtime_caches=cache_folder(),
    )


def load(planned: DeploymentEngines, run: RunOptions) -> dict[str, tuple[Loaded, ...]]:
    """All engines of deployments, by title, in the order of their graphs.

    Trees of ``specialised`` share engines: each is loaded once, because memory is scarce on a device.
    """
    paths = dict.fromkeys(path for _, engines in planned.values() for path in engines)
    loaded = {path: load_engine(path, run=run) for path in paths}
    return {
        title: tuple(Loaded(spec, loaded[path]) for spec, path in zip(deployment.graphs, engines, strict=True))
        for title, (deployment, engines) in planned.items()
    }


class Service(ABC, Generic[AnswerT]):
    """Makes the answers of a study's deployments of the outputs of its heads, for engines and for graphs alike."""

    def __init__(self, groups: Groups, roles: Mapping[str, str], threshold: float | None) -> None:
        """``roles``: that of each head. ``threshold``: how sure a first level must be of a group for its second."""
        self.groups, self.roles, self._threshold = groups, roles, threshold
        self.labels = tuple(label for labels in groups.values() for label in labels)

    @property
    def threshold(self) -> float:
        assert self._threshold is not None, "a gated deployment has a gate"
        return self._threshold

    @abstractmethod
    def read(self, head: str, output: Float32Array) -> AnswerT:
        """A head's output as an answer."""

    @abstractmethod
    def merged(self, answers: Mapping[str, AnswerT]) -> AnswerT:
        """One answer of those of all heads, each for its own labels."""

    @abstractmethod
    def fires(self, group: str, first: AnswerT) -> BoolArray:
        """In which of the N images the first level finds a group."""

    @abstractmethod
    def refined(self, first: AnswerT, second: Sequence[tuple[str, BoolArray, AnswerT]]) -> AnswerT:
        """The first level's answer with that of second levels in place of its own.

        ``second``: a head, the images in which its group fired, and its answer to these.
        """

    def in_turn(self, first: AnswerT, second: Sequence[str], ask: Callable[[str, BoolArray], AnswerT]) -> AnswerT:
        """A gated deployment's answer: where a group fires, its labels are those of the second level.

        Args:
            first: the first level's answer.
            second: the heads of groups.
            ask: from a head and the images that fired, at least one, to the head's answer to these.
        """
        fired = {name: self.fires(self.roles[name], first) for name in second}
        # Engines take one image or more, so none is asked about no images.
        return self.refined(first, [(name, rows, ask(name, rows)) for name, rows in fired.items() if rows.any()])

    def deployed(self, deployment: Deployment, outputs: Mapping[str, Float32Array]) -> AnswerT:
        """The answer of a deployment, from every head's outputs for every image; other heads' are not read."""
        if not deployment.gated:
            return self.merged({name: self.read(name, outputs[name]) for name in deployment.heads})
        first, *second = deployment.heads
        return self.in_turn(
            self.read(first, outputs[first]), second, lambda name, rows: self.read(name, outputs[name][rows])
        )

    def predictor(self, deployment: Deployment, loaded: Sequence[Loaded]) -> Callable[[Float32Array], AnswerT]:
        """A function from images (N x 3 x H x W in [0, 1]) to the answer of a deployment, by its engines."""

        def together(images: Float32Array) -> AnswerT:
            outputs: dict[str, Float32Array] = {}
            for one in loaded:
                outputs |= one.run({IMAGES: images})
            return self.deployed(deployment, outputs)

        def in_turn(images: Float32Array) -> AnswerT:
            tensors = {IMAGES: images, **loaded[0].run({IMAGES: images})}
            levels = {level.spec.heads[0]: level for level in loaded[1:]}
            first = self.read(COMBINED, tensors[COMBINED])
            return self.in_turn(
                first, tuple(levels), lambda name, rows: self.read(name, levels[name].run(tensors, rows)[name])
            )

        return in_turn if deployment.gated else together
