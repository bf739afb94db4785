"""Facts of a study that swept the cut: the order of the cuts, and how well the cost estimate ranked the trees."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from edgetl.arrays import Float64Array
from edgetl.artifacts.bundle import IMAGES, TOP
from edgetl.artifacts.results import DeploymentResult, Results, Tree
from edgetl.report.deployment_names import deployment_of, family_of, is_frozen, uniform
from edgetl.report.evidence import candidates
from edgetl.report.wording import listed, printable

# The order of fewer says nothing: two are in the right one by chance half of the time.
_FEWEST_RANKED = 3


def has_cuts(results: Results) -> bool:
    """Return whether something other than heads on the whole frozen trunk was tried."""
    return any(not is_frozen(measured.cuts) for measured in results.deployments)


def depth_order(results: Results, cuts: Sequence[str]) -> list[str]:
    """Return the cuts from the images' side to the top."""
    flops = shared_flops(results)
    # The deeper the cut, the more is shared: a ``branched`` tree has fewer FLOPs. Where those are not known for every
    # cut, names are taken to count upward, as layers' names do.
    known = all(cut in flops for cut in cuts)

    def depth(cut: str) -> tuple[bool, bool, int, list[tuple[int, str]]]:
        # Numbers as numbers, so that ``features.7`` comes before ``features.12``.
        parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", cut)]
        return cut != IMAGES, cut == TOP, -flops[cut] if known else 0, parts

    return sorted(cuts, key=depth)


def shared_flops(results: Results) -> dict[str, int]:
    """Return the FLOPs of trees whose groups share a trunk up to one cut, by the cut."""
    everything: tuple[Tree | DeploymentResult, ...] = (*results.trees, *results.deployments)
    return {
        cut: one.flops
        for one in everything
        if family_of(deployment_of(one.name)) == "branched"
        and (cut := uniform(one.cuts)) is not None
        and one.flops is not None
    }


def ranking(results: Results) -> str | None:
    """Return how well the cost estimate ordered the measured latencies; None where too few were measured."""
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
        "How well the cost estimate ordered the trees that were then measured: its rank correlation (Spearman) with "
        f"the latency is {listed(found)}; 1 is the same order, 0 no relation."
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the correlation of the ranks, equals sharing theirs; None for fewer than three, or where all are equal."""
    if len(a) < _FEWEST_RANKED or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Sequence[float]) -> Float64Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64Array = (last - (counts - 1) / 2)[inverse]
    return ranks
