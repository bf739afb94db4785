"""Deployments: which heads are in which graph, and how their outputs become one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgetl.arrays import BoolArray, Float32Array
from edgetl.artifacts.bundle import IMAGES, TOP, ClassificationHead, Head
from edgetl.artifacts.files import Artifact, file_stem
from edgetl.artifacts.results import Tree
from edgetl.config import DEPLOYMENTS, OTHER

SECOND_LEVEL = "cascade"
"""In the name of a second level's head, where others have their cut."""


class GraphSpec(Artifact):
    """One graph of a deployment, which becomes one engine: a file stem, and the heads on its trunk.

    ``inputs`` are the tensors it reads. ``handed_on`` are extra outputs, which a graph of a cascade's second level
    reads. A ``runtime_specific`` graph differs between runtimes in every precision, any other only in INT8.
    """

    stem: str
    heads: tuple[str, ...]
    inputs: tuple[str, ...] = (IMAGES,)
    handed_on: tuple[str, ...] = ()
    runtime_specific: bool = False

    def file(self, precision: str, target: str) -> str:
        """The file name of the prepared graph."""
        return f"{self.stem}.{precision}{f'.{target}' if self.runtime_specific or precision == 'int8' else ''}.onnx"


class Deployment(Artifact):
    """A way to serve all groups: one or more graphs, each an engine. A cascade's first graph is its first level.

    ``cuts`` maps a group (or ``combined``) to the cut under its head.
    """

    name: str
    kind: str
    graphs: tuple[GraphSpec, ...]
    cuts: dict[str, str]
    flops: int

    @property
    def heads(self) -> tuple[str, ...]:
        return tuple(name for spec in self.graphs for name in spec.heads)

    @property
    def gated(self) -> bool:
        """Whether its first graph decides which of the others run."""
        return DEPLOYMENTS[self.kind].gated

    @property
    def independent(self) -> bool:
        """Whether each of its heads has an engine of its own, so that groups can run at their own rates."""
        return DEPLOYMENTS[self.kind].own_networks and len(self.graphs) > 1


class GateFiring(Artifact):
    """A set of groups that a cascade's first level finds, and the fraction of images in which it finds them."""

    groups: tuple[str, ...]
    fraction: float


class Gate(Artifact):
    """The gate of a cascade: the second level runs for a group where the first gives its labels ``threshold`` together.

    ``threshold`` was chosen on validation; ``firings`` is how often each set of groups passes it there.
    """

    threshold: float
    firings: tuple[GateFiring, ...]


class Shortlist(Artifact):
    """The deployments that are built and measured, and all trees that were considered."""

    schema_version: Literal[2] = 2
    deployments: tuple[Deployment, ...]
    trees: tuple[Tree, ...]
    gate: Gate | None = None

    @property
    def graphs(self) -> tuple[GraphSpec, ...]:
        """The graphs of all deployments, each once."""
        return tuple(dict.fromkeys(spec for deployment in self.deployments for spec in deployment.graphs))


def distinct(deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """The deployments that predict differently; of those with the same heads in other graphs, the first."""
    found: dict[object, Deployment] = {}
    for one in deployments:
        found.setdefault((one.gated, frozenset(one.heads)), one)
    return tuple(found.values())


def tree_name(kind: str, heads: Sequence[Head]) -> str:
    """The name of a deployment with its cuts, such as ``branched@features.7``: one for all heads, or one each."""
    places = [head.place for head in heads]
    if set(places) == {TOP}:
        return kind
    return f"{kind}@{places[0] if len(set(places)) == 1 else ','.join(places)}"


def layout(kind: str, heads: Sequence[Head]) -> tuple[GraphSpec, ...]:
    """The graphs of a deployment of these heads, one for each role, other than those of a gated one.

    Where there is more than one graph, each is named after its heads: trees with a head in common share its engine.
    """
    by_role = {head.role: head for head in heads}
    parts = [[by_role[role] for role in part] for part in DEPLOYMENTS[kind].graphs(list(by_role))]
    names = [tuple(head.name for head in part) for part in parts]
    stems = [f"{kind}.{','.join(part)}" for part in names] if len(parts) > 1 else [tree_name(kind, parts[0])]
    return tuple(GraphSpec(stem=file_stem(stem), heads=part) for stem, part in zip(stems, names, strict=True))


def merge_probabilities(
    outputs: Mapping[str, Float32Array], heads: Mapping[str, ClassificationHead], labels: Sequence[str]
) -> Float32Array:
    """Merge the outputs of all heads of a deployment into one probability per label.

    A specialist's calibrated probability of a label is P(label | image): if every specialist were right, those of
    all groups together would sum to one. So each label keeps its own specialist's probability, ``other`` is
    dropped, and the rest is normalised to sum to one.

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
    """The images in which the first level finds a group: N booleans from its N x len(labels) probabilities."""
    columns = [labels.index(label) for label in members]
    result: BoolArray = combined[:, columns].sum(axis=1) >= threshold
    return result


def apply_second_level(
    combined: Float32Array, labels: Sequence[str], second: Sequence[tuple[ClassificationHead, BoolArray, Float32Array]]
) -> Float32Array:
    """Replace the probabilities of groups that passed the gate with the second level's, and normalise again.

    Both are P(label | image), as in `merge_probabilities`.

    Args:
        combined: the first level's probabilities, N x len(labels).
        second: for each group its head, the images that passed the gate (N booleans), and the head's probabilities.
    """
    refined = combined.astype(np.float64)
    for head, rows, probabilities in second:
        for position, label in enumerate(head.classes):
            if label != OTHER:
                refined[rows, labels.index(label)] = probabilities[:, position]
    return _normalised(refined)


def _normalised(values: npt.NDArray[np.floating]) -> Float32Array:
    # All specialists may say `other` with certainty: where float32 leaves only zeros, every label is equally likely.
    positive = values.astype(np.float64) + np.finfo(np.float64).tiny
    result: Float32Array = (positive / positive.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
