"""All that a verdict is drawn from, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgetl.artifacts.results import Comparison, Measured
from edgetl.config import Budget
from edgetl.report.evidence import Candidate, Pairs, candidates, most_accurate
from edgetl.report.limits import Standing, standings


@dataclass(frozen=True)
class Case:
    """Candidates, the simplest first, and how each stands to each limit (by title).

    ``reference`` is the most accurate candidate; ``not_run`` are the rows that are no candidates.
    """

    candidates: tuple[Candidate, ...]
    not_run: tuple[Measured, ...]
    reference: Candidate
    standings: Mapping[str, tuple[Standing, ...]]
    pairs: Pairs
    budget: Budget

    @property
    def qualified(self) -> tuple[Candidate, ...]:
        """Those that meet every limit."""
        return tuple(candidate for candidate in self.candidates if not self.missed(candidate))

    def missed(self, candidate: Candidate) -> tuple[Standing, ...]:
        return tuple(standing for standing in self.standings[candidate.title] if not standing.met)

    def counterparts(self, subject: Candidate) -> dict[str, Candidate]:
        """One candidate of every other deployment: that in the subject's precision, else the fastest."""
        others: dict[str, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.row.name != subject.row.name:
                others.setdefault(candidate.row.name, []).append(candidate)
        return {
            name: min(rows, key=lambda c: (c.row.precision != subject.row.precision, c.latency.p50))
            for name, rows in others.items()
        }


def build_case(measured: Iterable[Measured], comparisons: Iterable[Comparison], budget: Budget) -> Case | None:
    """None where no row was run. The order of the rows does not matter."""
    rows = sorted(measured, key=lambda row: row.title)
    run = candidates(rows)
    if not run:
        return None
    ran = {candidate.title for candidate in run}
    pairs, reference = Pairs(comparisons), most_accurate(run)
    return Case(
        candidates=run,
        not_run=tuple(row for row in rows if row.title not in ran),
        reference=reference,
        standings={candidate.title: standings(candidate, reference, pairs, budget) for candidate in run},
        pairs=pairs,
        budget=budget,
    )
