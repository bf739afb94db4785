"""The verdict: a pure function of the measurements and the budget.

Who may win:
    A candidate is a row that was run; what is unsupported is named and left out. The reference for accuracy is the
    most accurate candidate. A limit is met where the point estimate meets it, and the reasons say whether the interval
    proves it too. An accuracy drop is the reference's accuracy minus the candidate's, with the interval of their
    comparison image by image. A figure that was not measured does not meet a limit that is set on it.
    Where the budget sets no accuracy limit at all, a candidate qualifies if its drop is below one point, or if the
    interval of the drop includes zero.

Who wins:
    The fastest by p50 of those that meet every limit. It is faster than another only if the ratio, round by round, is
    at least 1.05, its interval excludes 1, and the ratio is stable; otherwise they tie. A tie goes to the more
    accurate if the paired interval excludes 0, then to fewer engines, then to combined before shared before one-vs-rest
    before branched before cascade before specialised (whatever their cuts), then to fewer heads with layers tuned for
    them, then to fp32 before fp16 before int8, then to fewer FLOPs.

What is unstable:
    UNSTABLE is never a win. An unstable ratio proves nothing. A stable one does, though latencies in milliseconds may
    be unstable: whatever slows the machine down for longer than a round hits both. A candidate of unstable latency is
    chosen only where no stable one meets the budget. The verdict is stable only if the winner's latency is, and if
    trusting the unstable latencies would choose the same.

Where nothing meets the budget, nothing is named: the reasons say which limits the nearest candidate misses and by how
much. Nearest is who misses the fewest limits, then by the smallest fraction of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.results import Comparison, DeploymentResult, Verdict
from edgetl.config import BudgetSettings, metric_named
from edgetl.report.case import build_case
from edgetl.report.choice import choose_stable, choose_trusting
from edgetl.report.reasons import why_chosen, why_nothing, why_nothing_ran


def decide(
    measured: Sequence[DeploymentResult],
    comparisons: Sequence[Comparison],
    budget: BudgetSettings,
    metric: str = "top-1",
    accuracy_control: AccuracyControlResult | None = None,
) -> Verdict:
    """Return what to ship, and why. It depends on nothing else, and not on the order of the rows.

    ``metric`` is what their accuracy is, ``accuracy_control`` how INT8 was made: they change the words, not who wins.
    """
    case = build_case(measured, comparisons, budget, metric_named(metric), accuracy_control)
    if case is None:
        reasons = why_nothing_ran(sorted(measured, key=lambda row: row.title))
        return Verdict(deployment=None, precision=None, budget_met=False, stable=False, reasons=reasons)
    if not case.qualified:
        nearest = case.nearest(case.candidates)
        stable, reasons = nearest.latency.stable, why_nothing(case, nearest)
        return Verdict(deployment=None, precision=None, budget_met=False, stable=stable, reasons=reasons)
    choice = choose_stable(case.qualified, case.pairs)
    # If trusting the unstable latencies would choose another, the verdict rests on them.
    rival = choose_trusting(case.qualified, case.pairs)
    return Verdict(
        deployment=choice.winner.row.name,
        precision=choice.winner.row.precision,
        budget_met=True,
        stable=choice.winner.latency.stable and rival == choice.winner,
        reasons=why_chosen(case, choice, rival),
    )
