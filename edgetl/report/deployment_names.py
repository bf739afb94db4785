"""Names of deployments and cuts: their parts, what they mean in words, and where they can be broken."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgetl.artifacts.bundle import IMAGES, TOP, TRUNCATED
from edgetl.config import DEPLOYMENTS
from edgetl.report.wording import listed

# Where a name may be broken, the best place first: between directories, after the deployment, between cuts, in a cut.
_BREAKS = "/@,-._"


def deployment_of(name: str) -> str:
    """Return the deployment of a name: ``branched`` of ``branched@features.7,top``."""
    return name.partition("@")[0]


def cut_of(name: str) -> str:
    """Return the cuts of a name: ``features.7,top`` of ``branched@features.7,top``."""
    return name.partition("@")[2] or TOP


def family_of(deployment: str) -> str:
    """Return the kind with tuned layers that a kind belongs to, such as ``branched`` for ``shared``; else itself."""
    return next((kind.name for kind in DEPLOYMENTS.values() if kind.frozen_name == deployment), deployment)


def is_truncated(cut: str) -> bool:
    return cut.startswith(TRUNCATED)


def without_truncation(cut: str) -> str:
    """Return the cut's layer, whether the network ends there or goes on."""
    return cut.removeprefix(TRUNCATED)


def is_tuned(cut: str) -> bool:
    """Return whether layers above the cut were tuned for its head."""
    return cut != TOP and not is_truncated(cut)


def is_frozen(cuts: Mapping[str, str]) -> bool:
    """Return whether every head is at the top."""
    return set(cuts.values()) <= {TOP}


def uniform(cuts: Mapping[str, str]) -> str | None:
    """Return the one cut of all heads; None where they differ. Without any, all are at the top."""
    places = set(cuts.values()) or {TOP}
    return places.pop() if len(places) == 1 else None


def answer(name: str, cuts: Mapping[str, str]) -> str:
    """Return a deployment's answer to the question: one combined model or several specialised ones?"""
    deployment, cut = deployment_of(name), uniform(cuts)
    if deployment == "branched":  # whose cut decides what there is to serve
        if cut is None:
            return f"Neither, but one trunk with a branch per group ({_each(cuts)})"
        if cut == IMAGES:
            return "Several specialised ones in one engine, where nothing is shared"
        if is_tuned(cut):
            return f"Neither, but one trunk shared up to {cut}, then a branch per group"
        # With nothing tuned, a branch is no more than a head.
        where = f" {_place(cut)}" if is_truncated(cut) else ""
        return f"Neither, but one shared trunk{where} with a head per group"
    how = f" ({_each(cuts)})" if cut is None else "" if cut == TOP else f", {_place(cut)}"
    kind = DEPLOYMENTS.get(deployment)
    if kind is None:
        return f"Neither, but {name}"
    # Of a gated kind the cuts are a detail: what matters is which level runs.
    return f"{kind.answer}{'' if kind.gated else how}"


def _each(cuts: Mapping[str, str]) -> str:
    return listed([f"{group} {_place(cut)}" for group, cut in cuts.items()])


def _place(cut: str) -> str:
    if is_truncated(cut):
        return f"cut short at {without_truncation(cut)}"
    return {TOP: "all frozen", IMAGES: "tuned end to end"}.get(cut, f"tuned above {cut}")


def folded(name: str, width: int, breaks: str = _BREAKS) -> list[str]:
    """Return a name in lines of at most ``width`` characters, broken where it can be; joined they are the name."""
    if len(name) <= width:
        return [name]
    if not breaks:
        return [name[start : start + width] for start in range(0, len(name), width)]
    lines = [""]
    for piece in re.split(f"(?<={re.escape(breaks[0])})", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return [part for line in lines for part in folded(line, width, breaks[1:])]
