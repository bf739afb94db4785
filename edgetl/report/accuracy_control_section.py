"""The report's section on accuracy control: which layers are not INT8, what each would lose, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.artifacts.accuracy_control_record import AccuracyControlResult
from edgetl.artifacts.results import Results
from edgetl.report.table import UNKNOWN, interval
from edgetl.report.wording import abridged, count, percent, points, printable, signed


@dataclass(frozen=True)
class AttemptRow:
    """One attempt to keep the accuracy, with the figures of the deployment that lost most."""

    variant: str
    excluded: str
    accuracy: str
    interval: str
    drop: str
    standard_error: str
    chosen: bool


@dataclass(frozen=True)
class SensitivityRow:
    """Layers that read one tensor: their noise alone in INT8, and the latency that excluding them costs."""

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


def accuracy_control_sentence(control: AccuracyControlResult) -> str:
    """Return how INT8 kept its accuracy, or that it did not."""
    if control.why_not_met is not None:
        return f"{control.why_not_met}."
    taken, how = control.attempts[control.chosen], "in all layers"
    if excluded := [record for record in control.layers if record.excluded]:
        names = [name for record in excluded for name in record.layers]
        every = count(sum(len(record.layers) for record in control.layers), "layer")
        costs = [record.latency_cost for record in excluded if record.latency_cost is not None]
        # A sum of only some of the costs would be too small.
        known = len(costs) == len(excluded)
        price = f", which costs about {percent(sum(costs))} % of latency by estimate" if known else ""
        how = f"with {len(names)} of {every} in {control.excluded_precision} ({abridged(names)}){price}"
    what = control.metric or "accuracy"
    drift = f"{signed(-taken.drop)} points against FP32, give or take {points(taken.standard_error)}"
    images = f"on {count(control.images, 'validation image')}"
    limit = f"where accuracy control allows a drop of {points(control.max_accuracy_drop)}"
    return f"INT8 by {taken.variant} keeps its {what} {how}: {drift}, {images}, {limit}."


def accuracy_control_section(results: Results) -> AccuracyControlSection | None:
    """Return the section, or None where the study has no accuracy control."""
    control = results.accuracy_control
    if control is None:
        return None
    return AccuracyControlSection(
        lead=printable(accuracy_control_sentence(control)),
        floating=control.excluded_precision,
        attempts=tuple(
            AttemptRow(
                variant=printable(attempt.variant),
                excluded=str(attempt.excluded),
                accuracy=percent(attempt.accuracy.value),
                interval=interval(attempt.accuracy),
                drop=points(attempt.drop),
                standard_error=points(attempt.standard_error),
                chosen=number == control.chosen and control.why_not_met is None,
            )
            for number, attempt in enumerate(control.attempts)
        ),
        layers=tuple(
            SensitivityRow(
                layers=printable(", ".join(record.layers)),
                snr_db=f"{record.snr_db:.1f}",
                cost=UNKNOWN if record.latency_cost is None else f"{signed(record.latency_cost)} %",
                excluded=record.excluded,
            )
            for record in control.layers
        ),
    )
