"""One candidate against another in words: how much faster, how much more accurate, and what of it is proven."""

from __future__ import annotations

from collections.abc import Iterator

from edgetl.report.case import VerdictCase
from edgetl.report.deployment_names import answer, cut_of, family_of
from edgetl.report.evidence import Candidate, Interval
from edgetl.report.limits import LimitCheck
from edgetl.report.wording import listed, megabytes, percent, points, significant, times

_QUESTION = "One combined model or several specialised ones?"
_CENTRAL = ("combined", "specialised")
_SHARING = "branched"


def one_or_several(case: VerdictCase, subject: Candidate) -> Iterator[str]:
    """Yield the answer to the central question, and the subject against each of the other deployments.

    Those that differ from it in nothing but the cut are left to `freeze_depth`.
    """
    rivals = {
        name: rival
        for name, rival in case.counterparts(subject).items()
        if family_of(name) != family_of(subject.deployment)
    }
    unmeasured = [name for name in _CENTRAL if name not in {*rivals, subject.deployment}]
    central = [rivals.pop(name) for name in _CENTRAL if name in rivals]
    if unmeasured:
        yield f"{_QUESTION} This study cannot say: it has no measurement of {listed(unmeasured)}."
        rivals |= {rival.deployment: rival for rival in central}
    else:
        reply = answer(subject.row.name, subject.row.cuts) if case.qualified else "None of them meets the budget"
        yield f"{_QUESTION} {reply}: {_against_all(case, subject, central)}."
    for rival in rivals.values():
        sentence = _against_all(case, subject, [rival])
        yield f"{sentence.replace('it', 'It', 1) if sentence.startswith('it ') else sentence}."


def freeze_depth(case: VerdictCase, subject: Candidate) -> Iterator[str]:
    """Yield for the subject's deployment, ``combined`` and ``branched`` their best cut, what it gains and costs."""
    for family in dict.fromkeys((family_of(subject.deployment), "combined", _SHARING)):
        members = [candidate for candidate in case.candidates if family_of(candidate.deployment) == family]
        frozen = [candidate for candidate in members if candidate.frozen]
        tried = [candidate for candidate in members if not candidate.frozen]
        if not frozen or not tried:
            continue
        best = subject if subject in tried else case.representative(tried, subject.row.precision)
        top = next((one for one in frozen if one.row.precision == best.row.precision), frozen[0])
        number = len({candidate.row.name for candidate in tried})
        which = f"the best of {number} cuts for this budget is" if number > 1 else "the one cut measured is"
        speedup = case.pairs.speedup(best, top)
        stable = best.latency.stable and top.latency.stable
        # Only branches share less the deeper they are tuned: a combined model runs the same layers at any cut.
        less = stable and speedup is not None and speedup.high < 1.0 and family == _SHARING
        price = ", which is what sharing less costs" if less else ""
        gain = f"{_accuracy(case, best, top)} and {_speed(case, best, top)}{price}{_shortfall(case, best)}"
        yield f"Freeze depth of {family}: {which} {cut_of(best.row.name)}. Against all frozen, {_it(best)} is {gain}."


def int8(case: VerdictCase, name: str) -> str | None:
    """Return what INT8 costs and gains in the deployment ``name``; None where there is nothing to compare."""
    by_precision = {candidate.row.precision: candidate for candidate in case.candidates if candidate.row.name == name}
    small, plain = by_precision.get("int8"), by_precision.get("fp32", by_precision.get("fp16"))
    if small is None or plain is None:
        return None
    sizes = [megabytes(sum(engine.bytes for engine in one.row.engines)) for one in (small, plain)]
    engines = f", with {sizes[0]} MB of engines instead of {sizes[1]} MB" if plain.row.engines else ""
    return f"INT8 for {name} is {_against(case, small, plain)}{engines}{_shortfall(case, small)}."


def written(standing: LimitCheck) -> str:
    """Return a figure beside its limit: ``latency 2.10 of at most 5.00 ms``."""
    bound = "at most" if standing.at_most else "at least"
    limit = f"{bound} {standing.written(standing.limit)} {standing.unit}"
    if standing.value is None:
        return f"{standing.what} not measured, {limit} asked for"
    return f"{standing.what} {standing.written(standing.value)} of {limit}"


def _against_all(case: VerdictCase, subject: Candidate, rivals: list[Candidate]) -> str:
    return "; ".join(f"{_it(subject)} is {_against(case, subject, rival)}{_shortfall(case, rival)}" for rival in rivals)


def _it(subject: Candidate) -> str:
    # A name with cuts is too long to be repeated in each sentence.
    return "it" if "@" in subject.row.name else subject.title


def _against(case: VerdictCase, a: Candidate, b: Candidate) -> str:
    """Return speed, then accuracy, of ``a`` against ``b``: what follows "a is"."""
    return f"{_speed(case, a, b)} and {_accuracy(case, a, b)}"


def _speed(case: VerdictCase, a: Candidate, b: Candidate) -> str:
    speedup = case.pairs.speedup(a, b)
    if case.pairs.unstable(a, b):
        return f"not comparable in speed with {b.title} (UNSTABLE: their ratio changed while it was measured)"
    if speedup is None:
        pair = f"{significant(a.latency.p50)} ms against {significant(b.latency.p50)} ms"
        return f"not proven faster or slower than {b.title} ({pair}, not timed side by side)"
    # "0.8 times as fast" would have to be turned around by the reader.
    if speedup.high < 1.0:
        slower = speedup.inverted()
        factor, low, high = times(slower.value, slower.low, slower.high)
        return f"slower than {b.title} by a factor of {factor} ({low} to {high})"
    factor, low, high = times(speedup.value, speedup.low, speedup.high)
    if speedup.low > 1.0:
        return f"{factor} times as fast as {b.title} ({low} to {high})"
    return f"about as fast as {b.title} ({low} to {high} times)"


def _accuracy(case: VerdictCase, a: Candidate, b: Candidate) -> str:
    difference, words = case.pairs.accuracy(a, b), case.metric.words
    if difference is None:
        shares = f"{percent(a.overall_accuracy)} % {words.unit} against {percent(b.overall_accuracy)} %"
        return f"{shares} (not compared {case.metric.task_words.paired})"
    if difference.low > 0.0:
        return f"{points(difference.value)} points {words.higher} ({_range(difference)})"
    if difference.high < 0.0:
        less = difference.negated()
        return f"{points(less.value)} points {words.lower} ({_range(less)})"
    # Both gave the same answer on every image.
    if difference.low == difference.high:
        return f"exactly {words.alike}"
    spread = f"between {points(-difference.low)} points less and {points(difference.high)} more"
    return f"not proven to differ in {words.name} ({spread})"


def _range(difference: Interval) -> str:
    return f"{points(difference.low)} to {points(difference.high)}"


def _shortfall(case: VerdictCase, candidate: Candidate) -> str:
    """Return the limits that a candidate misses, to follow a sentence about it."""
    # Where no candidate qualifies, the reasons begin with that.
    missed = [written(standing) for standing in case.missed(candidate)]
    return f"; {candidate.title} misses the budget ({listed(missed)})" if missed and case.qualified else ""
