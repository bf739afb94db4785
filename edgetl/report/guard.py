"""What a report says of the accuracy guard: which layers are not INT8, what each would lose, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.artifacts.guard import Guard, LayerNote
from edgetl.artifacts.results import Results
from edgetl.report.metric import Terms, terms
from edgetl.report.table import UNKNOWN, interval
from edgetl.report.wording import abridged, count, percent, points, printable, signed


@dataclass(frozen=True)
class AttemptRow:
    """An attempt to keep the accuracy; of all deployments, that which lost most."""

    what: str
    returned: str
    accuracy: str
    interval: str
    drop: str
    error: str
    taken: bool


@dataclass(frozen=True)
class LayerRow:
    """Layers that read one tensor: their loss alone in INT8, and what it would cost not to have them in it."""

    layers: str
    snr_db: str
    cost: str
    returned: bool


@dataclass(frozen=True)
class GuardPage:
    lead: str
    floating: str
    attempts: tuple[AttemptRow, ...]
    layers: tuple[LayerRow, ...]


def guard_sentence(guard: Guard, words: Terms) -> str:
    """How INT8 kept to its budget, or that it did not."""
    if guard.missed is not None:
        return f"{guard.missed}."
    taken = guard.attempts[guard.taken]
    drift = f"{signed(-taken.drop)} points against FP32, give or take {points(taken.error)}"
    images = f"on {count(guard.images, 'validation image')}"
    limit = f"where the guard lets it lose {points(guard.max_accuracy_drop)}"
    return f"INT8 by {taken.what} keeps its {words.name} {_how(guard)}: {drift}, {images}, {limit}."


def _how(guard: Guard) -> str:
    returned = [note for note in guard.layers if note.returned]
    if not returned:
        return "in all layers"
    names = [name for note in returned for name in note.layers]
    every = count(sum(len(note.layers) for note in guard.layers), "layer")
    cost = _cost(returned)
    price = "" if cost is None else f", which costs about {percent(cost)} % of latency by estimate"
    return f"with {len(names)} of {every} in {guard.returned_to} ({abridged(names)}){price}"


def _cost(notes: list[LayerNote]) -> float | None:
    known = [note.latency_cost for note in notes if note.latency_cost is not None]
    return sum(known) if len(known) == len(notes) else None


def guard_page(results: Results) -> GuardPage | None:
    """None where the study has no guard."""
    guard = results.guard
    if guard is None:
        return None
    return GuardPage(
        lead=printable(guard_sentence(guard, terms(results.metric))),
        floating=guard.returned_to,
        attempts=tuple(
            AttemptRow(
                what=printable(attempt.what),
                returned=str(attempt.returned),
                accuracy=percent(attempt.accuracy.value),
                interval=interval(attempt.accuracy),
                drop=points(attempt.drop),
                error=points(attempt.error),
                taken=number == guard.taken and guard.missed is None,
            )
            for number, attempt in enumerate(guard.attempts)
        ),
        layers=tuple(
            LayerRow(
                layers=printable(", ".join(note.layers)),
                snr_db=f"{note.snr_db:.1f}",
                cost=UNKNOWN if note.latency_cost is None else f"{signed(note.latency_cost)} %",
                returned=note.returned,
            )
            for note in guard.layers
        ),
    )
