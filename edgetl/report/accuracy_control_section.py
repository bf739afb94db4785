"""What a report says of the accuracy guard: which layers are not INT8, what each would lose, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult, LayerSensitivityRecord
from edgetl.artifacts.results import Results
from edgetl.report.metric_words import MetricWords, terms
from edgetl.report.table import UNKNOWN, interval
from edgetl.report.wording import abridged, count, percent, points, printable, signed


@dataclass(frozen=True)
class AttemptRow:
    """An attempt to keep the accuracy; of all deployments, that which lost most."""

    variant: str
    excluded: str
    accuracy: str
    interval: str
    drop: str
    standard_error: str
    chosen: bool


@dataclass(frozen=True)
class SensitivityRow:
    """Layers that read one tensor: their loss alone in INT8, and what it would cost not to have them in it."""

    layers: str
    snr_db: str
    cost: str
    excluded: bool


@dataclass(frozen=True)
class AccuracyControlSection:
    lead: str
    floating: str
    attempts: tuple[AttemptRow, ...]
    layers: tuple[SensitivityRow, ...]


def accuracy_control_sentence(guard: AccuracyControlResult, words: MetricWords) -> str:
    """How INT8 kept to its budget, or that it did not."""
    if guard.why_not_met is not None:
        return f"{guard.why_not_met}."
    taken = guard.attempts[guard.chosen]
    drift = f"{signed(-taken.drop)} points against FP32, give or take {points(taken.standard_error)}"
    images = f"on {count(guard.images, 'validation image')}"
    limit = f"where the guard lets it lose {points(guard.max_accuracy_drop)}"
    return f"INT8 by {taken.variant} keeps its {words.name} {_how(guard)}: {drift}, {images}, {limit}."


def _how(guard: AccuracyControlResult) -> str:
    returned = [note for note in guard.layers if note.excluded]
    if not returned:
        return "in all layers"
    names = [name for note in returned for name in note.layers]
    every = count(sum(len(note.layers) for note in guard.layers), "layer")
    cost = _cost(returned)
    price = "" if cost is None else f", which costs about {percent(cost)} % of latency by estimate"
    return f"with {len(names)} of {every} in {guard.excluded_precision} ({abridged(names)}){price}"


def _cost(notes: list[LayerSensitivityRecord]) -> float | None:
    known = [note.latency_cost for note in notes if note.latency_cost is not None]
    return sum(known) if len(known) == len(notes) else None


def accuracy_control_section(results: Results) -> AccuracyControlSection | None:
    """None where the study has no guard."""
    guard = results.accuracy_control
    if guard is None:
        return None
    return AccuracyControlSection(
        lead=printable(accuracy_control_sentence(guard, terms(results.metric))),
        floating=guard.excluded_precision,
        attempts=tuple(
            AttemptRow(
                variant=printable(attempt.variant),
                excluded=str(attempt.excluded),
                accuracy=percent(attempt.accuracy.value),
                interval=interval(attempt.accuracy),
                drop=points(attempt.drop),
                standard_error=points(attempt.standard_error),
                chosen=number == guard.chosen and guard.why_not_met is None,
            )
            for number, attempt in enumerate(guard.attempts)
        ),
        layers=tuple(
            SensitivityRow(
                layers=printable(", ".join(note.layers)),
                snr_db=f"{note.snr_db:.1f}",
                cost=UNKNOWN if note.latency_cost is None else f"{signed(note.latency_cost)} %",
                excluded=note.excluded,
            )
            for note in guard.layers
        ),
    )
