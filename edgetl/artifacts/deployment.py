"""Deployments: which heads stand in which graph, and how their outputs become one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import IMAGES, TOP, ClassificationHead
from edgetl.artifacts.files import Artifact, file_stem
from edgetl.artifacts.results import Tree
from edgetl.config import OTHER

COMBINED = "combined"
ONE_VS_REST = "one-vs-rest"
CASCADE = "cascade"
TUNABLE = frozenset({COMBINED, "specialised", "branched"})
"""Deployments of which every head may have a cut of its own."""


class GraphSpec(Artifact):
    """One graph of a deployment, to become one engine: a file stem, and the heads on its trunk.

    ``inputs`` are the tensors it starts from. ``handed_on`` are tensors that it puts out beside its heads, because a
    graph of a cascade's second level starts from them. Where it is ``runtime_specific``, its file differs between
    runtimes in every precision; else in INT8 alone.
    """

    stem: str
    heads: tuple[str, ...]
    inputs: tuple[str, ...] = (IMAGES,)
    handed_on: tuple[str, ...] = ()
    runtime_specific: bool = False

    def file(self, precision: str, target: str) -> str:
        """Name of the prepared graph."""
        return f"{self.stem}.{precision}{f'.{target}' if self.runtime_specific or precision == 'int8' else ''}.onnx"


class HeadPlacement(Protocol):
    """A head, as far as the layout of deployments goes: its name, and its cut as it stands in names."""

    @property
    def name(self) -> str: ...

    @property
    def place(self) -> str: ...


class Deployment(Artifact):
    """A way to serve all groups: one graph or several, one engine each. A cascade's first graph is its first level.

    ``cuts`` maps a group (or ``combined``) to where the frozen layers under its head end.
    """

    name: str
    kind: str
    graphs: tuple[GraphSpec, ...]
    cuts: dict[str, str]
    flops: int

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(name for spec in self.graphs for name in spec.heads)


class GateFiring(Artifact):
    """Which groups the first level of a cascade found in an image, and the share of images it is so for."""

    groups: tuple[str, ...]
    fraction: float


class Gate(Artifact):
    """When the second level of a cascade runs: where the first gives a group's labels at least this much together.

    ``threshold`` was chosen on validation; ``firings`` is what it does there.
    """

    threshold: float
    firings: tuple[GateFiring, ...]


class Shortlist(Artifact):
    """What is built and measured, of all the trees that were considered."""

    schema_version: Literal[2] = 2
    deployments: tuple[Deployment, ...]
    trees: tuple[Tree, ...]
    gate: Gate | None = None

    @property
    def graphs(self) -> tuple[GraphSpec, ...]:
        """Those of all deployments, each once."""
        return tuple(dict.fromkeys(spec for deployment in self.deployments for spec in deployment.graphs))


def distinct(deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """Those that predict differently: the same heads in other graphs say the same. Of equals the first."""
    found: dict[object, Deployment] = {}
    for one in deployments:
        found.setdefault((one.kind == CASCADE, frozenset(one.heads)), one)
    return tuple(found.values())


def roles(kind: str, groups: Sequence[str]) -> tuple[str, ...]:
    """What the heads of a deployment answer for: all labels together, or a group each."""
    if kind in {COMBINED, ONE_VS_REST}:
        return (kind,)
    return (COMBINED, *groups) if kind == CASCADE else tuple(groups)


def tree_name(kind: str, heads: Sequence[HeadPlacement]) -> str:
    """``branched@features.7``: a cut for all heads, or one each in order; nothing where all are at the top."""
    places = [head.place for head in heads]
    if set(places) == {TOP}:
        return kind
    return f"{kind}@{places[0] if len(set(places)) == 1 else ','.join(places)}"


def layout(kind: str, heads: Sequence[HeadPlacement]) -> tuple[GraphSpec, ...]:
    """The graphs of a deployment of these heads, a cascade's left out.

    ``specialised``: a graph for each head, with its own copy of the trunk. All others: one graph, in which what
    the heads have in common is there once.
    """
    if kind == "specialised":
        return tuple(GraphSpec(stem=file_stem(f"specialised.{head.name}"), heads=(head.name,)) for head in heads)
    return (GraphSpec(stem=file_stem(tree_name(kind, heads)), heads=tuple(head.name for head in heads)),)


def merge_probabilities(
    outputs: Mapping[str, Float32Array], heads: Mapping[str, ClassificationHead], labels: Sequence[str]
) -> Float32Array:
    """One probability per label from the outputs of all heads of a deployment.

    A specialist's calibrated probability of a label is P(label | image): if every specialist were right, those of
    all groups together would sum to one. So each label keeps its own specialist's probability, ``other`` is
    dropped, and the rest is normalised to sum to one. A label wins where its specialist is surer of it than
    every other specialist is of any of its own.

    Args:
        outputs: head name to probabilities, N x (number of the head's classes).
        heads: the heads by name.
        labels: the labels of all groups, in the order of the result's columns.

    Returns:
        N x len(labels), rows summing to one.
    """
    columns: dict[str, Float32Array] = {}
    for name, probabilities in outputs.items():
        for position, label in enumerate(heads[name].classes):
            if label != OTHER:
                columns[label] = probabilities[:, position]
    return _normalised(np.stack([columns[label] for label in labels], axis=1))


def fired_rows(combined: Float32Array, labels: Sequence[str], members: Sequence[str], threshold: float) -> BoolArray:
    """In which images the first level found a group: N truth values from its N x len(labels) probabilities."""
    columns = [labels.index(label) for label in members]
    result: BoolArray = combined[:, columns].sum(axis=1) >= threshold
    return result


def apply_second_level(
    combined: Float32Array, labels: Sequence[str], second: Sequence[tuple[ClassificationHead, BoolArray, Float32Array]]
) -> Float32Array:
    """A cascade's prediction: where a group fired, its labels have what the second level says of them.

    As in `merge_probabilities`, a specialist's probability of a label is P(label | image), so it takes the place of the
    first level's, and the row is normalised again.

    Args:
        combined: the first level's probabilities, N x len(labels).
        second: for each group its head, the images where it fired (N truth values), and its probabilities there.
    """
    refined = combined.astype(np.float64)
    for head, rows, probabilities in second:
        for position, label in enumerate(head.classes):
            if label != OTHER:
                refined[rows, labels.index(label)] = probabilities[:, position]
    return _normalised(refined)


def _normalised(values: npt.NDArray[np.floating]) -> Float32Array:
    # All specialists may say `other` with certainty; float32 then leaves zeros, and every label is as likely.
    positive = values.astype(np.float64) + np.finfo(np.float64).tiny
    result: Float32Array = (positive / positive.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
