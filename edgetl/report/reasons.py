"""The verdict's reasons: full sentences with their numbers, for readers who are no statisticians."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

from edgetl.artifacts.results import DeploymentResult
from edgetl.report.accuracy_control_section import accuracy_control_sentence
from edgetl.report.case import VerdictCase
from edgetl.report.choice import Choice
from edgetl.report.evidence import Candidate
from edgetl.report.limits import LimitCheck, accuracy_is_limited
from edgetl.report.pairwise import freeze_depth, int8, one_or_several, written
from edgetl.report.wording import MOST_LISTED, abridged, count, listed, percent, points, printable, significant

_WHAT_TO_DO = "close other programs, pin the threads or measure more rounds, then run again"
# A runtime's error may be pages long.
_LONGEST_CAUSE = 200


def why_chosen(case: VerdictCase, choice: Choice, rival: Candidate) -> tuple[str, ...]:
    """Return the reasons for a winner. ``rival`` would have won if every latency were stable."""
    winner = choice.winner
    return _sentences(
        _why_this_one(case, choice),
        _unstable(winner, rival),
        _limits_met(case, winner),
        *one_or_several(case, winner),
        *freeze_depth(case, winner),
        int8(case, winner.row.name),
        _accuracy_control_reason(case),
        _why_not_run(case.not_run),
    )


def why_nothing(case: VerdictCase, nearest: Candidate) -> tuple[str, ...]:
    """Return the reasons where no candidate meets the budget."""
    number = len(case.candidates)
    all_miss = "the only candidate misses a limit" if number == 1 else f"each of {number} candidates misses a limit"
    misses = []
    for check in case.missed(nearest):
        if check.value is None:
            why = f": {printable(check.why_unknown)}" if check.why_unknown else ""
            limit = f"the limit on {check.what} ({check.written(check.limit)} {check.unit})"
            misses.append(f"{limit}, because it was not measured{why}")
        else:
            proven = "" if check.interval is None or check.proven else ", not proven"
            misses.append(f"{written(check)} (by {check.written(abs(check.value - check.limit))}{proven})")
    return _sentences(
        f"Nothing meets the budget: {all_miss}.",
        f"The nearest is {nearest.title} ({_key_figures(case, nearest)}), which misses {listed(misses)}.",
        _unstable(nearest, nearest),
        *one_or_several(case, nearest),
        *freeze_depth(case, nearest),
        int8(case, nearest.row.name),
        _accuracy_control_reason(case),
        _why_not_run(case.not_run),
    )


def why_nothing_ran(rows: Iterable[DeploymentResult]) -> tuple[str, ...]:
    """Return the reasons where there is no candidate at all."""
    return _sentences("Nothing could be run, so there is nothing to choose from.", _why_not_run(rows))


def _accuracy_control_reason(case: VerdictCase) -> str | None:
    # Where accuracy control gave up, INT8 was not run, and `_why_not_run` gives the reason.
    if case.accuracy_control is None or case.accuracy_control.why_not_met:
        return None
    return accuracy_control_sentence(case.accuracy_control)


def _sentences(*texts: str | None) -> tuple[str, ...]:
    return tuple(printable(text) for text in texts if text)


def _key_figures(case: VerdictCase, candidate: Candidate) -> str:
    accuracy = f"{percent(candidate.overall_accuracy)} % {case.metric.words.name}"
    return f"{accuracy}, {significant(candidate.latency.p50)} ms for one image"


def _why_this_one(case: VerdictCase, choice: Choice) -> str:
    winner, qualified = choice.winner, len(case.qualified)
    stable = sum(candidate.latency.stable for candidate in case.qualified)
    limited = accuracy_is_limited(case.budget)
    unlimited = f"about {case.metric.words.alike} as the best (no {case.metric.words.name} limit is set)"
    meet = "within the budget" if limited else unlimited
    if qualified == 1:
        how = f"the only one of {count(len(case.candidates), 'candidate')} that is {meet}"
    elif choice.settled_by == "speed":
        field = f"{qualified}" if stable in (0, 1, qualified) else f"{stable} stable"
        best = "only stable one" if stable == 1 < qualified else "fastest"
        how = f"the {best} of the {field} candidates that are {meet}"
    else:
        tied = abridged([candidate.title for candidate in choice.tied if candidate != winner])
        simplest = f"simplest ({count(len(winner.row.engines), 'engine')})"
        trait = simplest if choice.settled_by == "simplicity" else case.metric.words.highest
        rivals = f"{tied} {'is' if len(choice.tied) == 2 else 'are'} not proven to be 5 % faster or more"
        how = f"the {trait} of the fastest that are {meet} ({rivals})"
    return f"{winner.title} is {how}: {_key_figures(case, winner)}."


def _unstable(winner: Candidate, rival: Candidate) -> str | None:
    if not winner.latency.stable:
        held = "ratios are measured side by side and hold unless they are marked"
        return f"The latency of {winner.title} is UNSTABLE{_cause(winner)}; {held}: {_WHAT_TO_DO}."
    if rival != winner:
        return (
            f"{rival.title} may be the better choice, but an UNSTABLE latency never wins{_cause(rival)}: {_WHAT_TO_DO}."
        )
    return None


def _cause(candidate: Candidate) -> str:
    why = candidate.latency.why_unstable
    return f" ({why.rstrip('.')})" if why else ""


def _limits_met(case: VerdictCase, winner: Candidate) -> str:
    clauses, costs = [], []
    for check in case.standings[winner.title]:
        if check.is_drop:
            clauses.append(_drop(case, winner, check))
            continue
        doubt = ""
        # The estimate meets the limit, but its interval does not.
        if check.interval is not None and not check.proven:
            worst = check.interval.high if check.at_most else check.interval.low
            doubt = f", perhaps {check.written(worst)}{_more_images(check)}"
        costs.append(written(check) + doubt)
    if costs:
        clauses.append(f"it keeps to {listed(costs)}")
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _drop(case: VerdictCase, winner: Candidate, standing: LimitCheck) -> str:
    if winner == case.reference:
        return f"it is {case.metric.words.best}"
    limit = f"{'budget' if accuracy_is_limited(case.budget) else 'tolerance'} of {points(standing.limit)}"
    behind = f"{points(standing.value or 0.0)} points below that of the best, {case.reference.title}"
    lead = f"its {case.metric.words.name} is {behind}"
    if standing.interval is None:
        unpaired = f"the two were not compared {case.metric.task_words.paired}"
        return f"{lead}, within the {limit}, but {unpaired}, so it is not proven"
    low, high = standing.interval.low, standing.interval.high
    start = f"{points(low)}" if low >= 0.0 else f"{points(-low)} points above"
    if standing.proven:
        return f"{lead}: between {start} and {points(high)} points below, all within the {limit}"
    if standing.value is not None and standing.value >= standing.limit and not accuracy_is_limited(case.budget):
        return f"{lead}, but no drop is proven: it is between {start} and {points(high)} points below"
    return f"{lead}, within the {limit}, but it may be up to {points(high)} points{_more_images(standing)}"


def _more_images(standing: LimitCheck) -> str:
    if standing.images is None:
        return ""
    more = standing.images_to_settle()
    advice = f"about {more:,} more test images would settle it" if more else "too close for more images to settle it"
    return f" ({advice})"


def _why_not_run(rows: Iterable[DeploymentResult]) -> str | None:
    by_cause: dict[str, list[DeploymentResult]] = {}
    for row in rows:
        cause = textwrap.shorten(row.unsupported or "not measured", _LONGEST_CAUSE, placeholder=" ...").rstrip(".")
        by_cause.setdefault(cause, []).append(row)
    causes = []
    for cause, alike in by_cause.items():
        names = [row.title for row in alike]
        # A sweep has dozens of rows with one cause: then their number in each precision is enough.
        if len(alike) > MOST_LISTED:
            numbers = Counter(row.precision for row in alike)
            names = [f"{count(number, 'deployment')} in {precision}" for precision, number in numbers.items()]
        causes.append(f"{listed(names)} ({cause})")
    return f"Not run: {'; '.join(causes)}." if causes else None
