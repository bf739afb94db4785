"""Deployments: which heads stand in which graph, and how their outputs become one prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.bundle import Head
from edgetl.artifacts.files import Artifact
from edgetl.config import OTHER

Array = npt.NDArray[np.float32]

COMBINED = "combined"
ONE_VS_REST = "one-vs-rest"


class GraphSpec(Artifact):
    """One graph of a deployment, to become one engine: a file stem, and the heads on its trunk."""

    stem: str
    heads: tuple[str, ...]

    def file(self, precision: str, target: str) -> str:
        """Name of the prepared graph. INT8 is spelled differently for different runtimes."""
        return f"{self.stem}.int8.{target}.onnx" if precision == "int8" else f"{self.stem}.{precision}.onnx"


def layout(deployment: str, groups: Sequence[str]) -> tuple[GraphSpec, ...]:
    """The graphs that serve all groups, one engine each.

    ``combined`` and ``one-vs-rest``: one graph with one head over all labels. ``specialised``: a graph per group,
    each with its own copy of the trunk. ``shared``: one graph, the trunk once and a head per group.
    """
    if deployment == "specialised":
        return tuple(GraphSpec(stem=f"specialised.{group}", heads=(group,)) for group in groups)
    heads = {COMBINED: (COMBINED,), ONE_VS_REST: (ONE_VS_REST,), "shared": tuple(groups)}[deployment]
    return (GraphSpec(stem=deployment, heads=heads),)


def merge(outputs: Mapping[str, Array], heads: Mapping[str, Head], labels: Sequence[str]) -> Array:
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
    columns: dict[str, Array] = {}
    for name, probabilities in outputs.items():
        for position, label in enumerate(heads[name].classes):
            if label != OTHER:
                columns[label] = probabilities[:, position]
    merged = np.stack([columns[label] for label in labels], axis=1).astype(np.float64)
    # All specialists may say `other` with certainty; float32 then leaves zeros, and every label is as likely.
    merged += np.finfo(np.float64).tiny
    result: Array = (merged / merged.sum(axis=1, keepdims=True)).astype(np.float32)
    return result
