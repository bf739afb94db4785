"""The case that a verdict is drawn from: candidates, comparisons, limits, and how each candidate stands to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.results import Comparison, DeploymentResult
from edgetl.config import BudgetSettings, Metric
from edgetl.report.choice import choose_stable
from edgetl.report.evidence import Candidate, Pairs, Simplicity, candidates, most_accurate
from edgetl.report.limits import LimitCheck, standings


@dataclass(frozen=True)
class VerdictCase:
    """Candidates, the simplest first, and how each stands to each limit (by title).

    ``reference`` is the most accurate candidate; ``not_run`` are the rows that are no candidates; ``metric`` is what
    their accuracy is; ``accuracy_control`` says how INT8 came about.
    """

    candidates: tuple[Candidate, ...]
    not_run: tuple[DeploymentResult, ...]
    reference: Candidate
    standings: Mapping[str, tuple[LimitCheck, ...]]
    pairs: Pairs
    budget: BudgetSettings
    metric: Metric
    accuracy_control: AccuracyControlResult | None = None

    @property
    def qualified(self) -> tuple[Candidate, ...]:
        """Return the candidates that meet every limit."""
        return tuple(candidate for candidate in self.candidates if not self.missed(candidate))

    def missed(self, candidate: Candidate) -> tuple[LimitCheck, ...]:
        return tuple(standing for standing in self.standings[candidate.title] if not standing.met)

    def nearest(self, group: Sequence[Candidate]) -> Candidate:
        """Return who misses the fewest limits, then by the smallest fraction of them; of equals the simplest."""

        def distance(candidate: Candidate) -> tuple[int, float, Simplicity]:
            missed = self.missed(candidate)
            return len(missed), sum(standing.excess for standing in missed), candidate.simplicity

        return min(group, key=distance)

    def representative(self, group: Sequence[Candidate], precision: str) -> Candidate:
        """Return who stands for the group beside a candidate of ``precision``: who would be chosen if it were alone."""
        able = [candidate for candidate in group if not self.missed(candidate)]
        pool = able or group
        # Like is compared with like where that is possible within the budget: FP32 with INT8 would mix two questions.
        alike = [candidate for candidate in pool if candidate.row.precision == precision] or pool
        return choose_stable(alike, self.pairs).winner if able else self.nearest(alike)

    def counterparts(self, subject: Candidate) -> dict[str, Candidate]:
        """Return one candidate of every other deployment."""
        others: dict[str, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.deployment != subject.deployment:
                others.setdefault(candidate.deployment, []).append(candidate)
        return {name: self.representative(group, subject.row.precision) for name, group in others.items()}


def build_case(
    measured: Iterable[DeploymentResult],
    comparisons: Iterable[Comparison],
    budget: BudgetSettings,
    metric: Metric,
    accuracy_control: AccuracyControlResult | None = None,
) -> VerdictCase | None:
    """Return the case, or None where no row was run. The order of the rows does not matter."""
    # Sorted, so that the order in which candidates were measured decides no tie and no sentence.
    rows = sorted(measured, key=lambda row: row.title)
    run = candidates(rows)
    if not run:
        return None
    ran = {candidate.title for candidate in run}
    pairs, reference = Pairs(comparisons), most_accurate(run)
    return VerdictCase(
        candidates=run,
        not_run=tuple(row for row in rows if row.title not in ran),
        reference=reference,
        standings={candidate.title: standings(candidate, reference, pairs, budget, metric) for candidate in run},
        pairs=pairs,
        budget=budget,
        metric=metric,
        accuracy_control=accuracy_control,
    )
