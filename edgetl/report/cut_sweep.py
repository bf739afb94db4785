"""What a report says of a study that swept the cut: the order of the cuts, and how good the cost estimate was."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.bundle import IMAGES, TOP
from edgetl.artifacts.results import DeploymentResult, Results, Tree
from edgetl.report.deployment_names import deployment_of, is_frozen, uniform
from edgetl.report.evidence import candidates
from edgetl.report.wording import listed, printable

# Of fewer the order says nothing.
_FEWEST_RANKED = 3


def has_cuts(results: Results) -> bool:
    """Something other than heads on the whole frozen trunk was tried."""
    return any(not is_frozen(measured.cuts) for measured in results.deployments)


def depth_order(results: Results, cuts: Sequence[str]) -> list[str]:
    """From the images' side to the top. The deeper the cut, the more is shared: a ``branched`` tree has fewer FLOPs.

    Where those are not known for every cut, names are taken to count upward, as layers' names do.
    """
    flops = shared_flops(results)
    known = all(cut in flops for cut in cuts)

    def depth(cut: str) -> tuple[bool, bool, int, list[tuple[int, str]]]:
        return cut != IMAGES, cut == TOP, -flops[cut] if known else 0, _natural(cut)

    return sorted(cuts, key=depth)


def shared_flops(results: Results) -> dict[str, int]:
    """FLOPs of the trees in which the groups share a trunk up to one cut, by the cut."""
    everything: tuple[Tree | DeploymentResult, ...] = (*results.trees, *results.deployments)
    return {
        cut: one.flops
        for one in everything
        if deployment_of(one.name) in {"branched", "shared"}
        and (cut := uniform(one.cuts)) is not None
        and one.flops is not None
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """So that ``features.7`` comes before ``features.12``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def ranking(results: Results) -> str | None:
    """How well the estimate of cost ordered what was then measured; None where too little was."""
    estimates = {tree.name: tree.relative_latency for tree in results.trees}
    run = [candidate for candidate in candidates(results.deployments) if candidate.row.name in estimates]
    found = []
    for precision in dict.fromkeys(candidate.row.precision for candidate in run):
        alike = [candidate for candidate in run if candidate.row.precision == precision]
        measured = [candidate.latency.p50 for candidate in alike]
        rho = spearman([estimates[candidate.row.name] for candidate in alike], measured)
        if rho is not None:
            found.append(f"{rho:.2f} over {len(alike)} trees in {printable(precision)}")
    if not found:
        return None
    return (
        "How well the cost estimate ordered what was then measured: its rank correlation (Spearman) with the latency "
        f"is {listed(found)}; 1 is the same order, 0 none."
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The correlation of the ranks, equals sharing theirs; None for fewer than three, or where all are equal."""
    if len(a) < _FEWEST_RANKED or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> Float64Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64Array = (last - (counts - 1) / 2)[inverse]
    return ranks
