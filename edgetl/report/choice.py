"""The choice among candidates that meet the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgetl.report.evidence import Candidate, Pairs, most_accurate


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, those that are not proven slower than the fastest, and what settled it among them."""

    winner: Candidate
    tied: tuple[Candidate, ...]
    settled_by: Literal["speed", "accuracy", "simplicity"]


def choose(qualified: Sequence[Candidate], pairs: Pairs) -> Choice:
    """Return the fastest candidate; of those that tie with it the more accurate; of those the simplest."""
    # Every step asks what is proven against one candidate (the fastest, then the most accurate), not who beats whom:
    # ties are not transitive, and a candidate that is worse in everything must never change who wins.
    quickest = min(qualified, key=lambda candidate: (candidate.latency.p50, candidate.simplicity))
    tied = tuple(candidate for candidate in qualified if not pairs.proves_faster(quickest, candidate))
    best = most_accurate(tied)
    alike = [candidate for candidate in tied if not pairs.proves_more_accurate(best, candidate)]
    winner = min(alike, key=lambda candidate: candidate.simplicity)
    if len(tied) == 1:
        return Choice(winner, tied, "speed")
    return Choice(winner, tied, "accuracy" if len(alike) == 1 else "simplicity")


def choose_stable(qualified: Sequence[Candidate], pairs: Pairs) -> Choice:
    """Return the choice of `choose`; a candidate of unstable latency is chosen only where no other qualifies."""
    stable = [candidate for candidate in qualified if candidate.latency.stable]
    return choose(stable or qualified, pairs)


def choose_trusting(qualified: Sequence[Candidate], pairs: Pairs) -> Candidate:
    """Return who would win if every latency were stable."""
    trusted = [replace(candidate, latency=candidate.latency.replaced(stable=True)) for candidate in qualified]
    # The caller compares it with its winner: the candidate as measured, not the copy.
    title = choose(trusted, pairs).winner.title
    return next(candidate for candidate in qualified if candidate.title == title)
