"""The report's tables on detectors: precision label by label, and how their heads were trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgetl.artifacts.detector_bundle import DetectionHead
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import LabelPrecision, MeanAveragePrecision, Results
from edgetl.errors import EdgetlError
from edgetl.report.table import UNKNOWN, interval
from edgetl.report.wording import abridged, percent, printable, signed

Groups = Mapping[str, tuple[str, ...]]
Kind = Literal["overall", "group", "label"]

_GROUPS = TypeAdapter(dict[str, tuple[str, ...]])
_HEADS = TypeAdapter(tuple[DetectionHead, ...])


@dataclass(frozen=True)
class PercentInterval:
    """A fraction in percent and its interval."""

    value: str = UNKNOWN
    interval: str = ""


@dataclass(frozen=True)
class PrecisionRow:
    """mAP@0.5 and mAP@[.5:.95] of all labels, of a group, or of a label (its AP): one of each for every detector."""

    name: str
    kind: Kind
    objects: str
    ap50: tuple[PercentInterval, ...]
    ap: tuple[PercentInterval, ...]


@dataclass(frozen=True)
class PrecisionTable:
    """The detectors that were measured, by title, and where the chosen one is among them."""

    titles: tuple[str, ...]
    chosen: int | None
    rows: tuple[PrecisionRow, ...]


@dataclass(frozen=True)
class TrainedHead:
    """mAP@0.5 on validation: of a head before training, of the head on the frozen trunk, of it tuned with the trunk.

    ``known`` are its labels that the pretrained network knows, ``epoch`` the best one of the last training.
    """

    name: str
    labels: str
    known: str
    untrained: str
    frozen: str
    tuned: str
    gain: str
    epoch: str


def precision_table(results: Results) -> PrecisionTable | None:
    """Return all labels, then each group and the labels in it; None where no detector was measured.

    Raises:
        EdgetlError: the study's facts have no groups, or groups of another shape.
    """
    found = {one.title: one.average_precision for one in results.deployments if one.average_precision is not None}
    if not found:
        return None
    try:
        groups = _GROUPS.validate_python(results.data.get("groups"))
    except ValidationError as error:
        raise _unlike("data.groups", error, "the labels of each group") from None
    every = list(found.values())
    # The test images are the same for all detectors, and so are the objects on them.
    objects = {label: one.objects for label, one in every[0].labels.items()}
    rows = [_row("all labels", "overall", sum(objects.values()), [one.overall for one in every])]
    for group, labels in groups.items():
        together = sum(objects.get(label, 0) for label in labels)
        rows.append(_row(group, "group", together, [one.groups.get(group) for one in every]))
        rows += [
            _row(label, "label", objects.get(label, 0), [one.labels.get(label) for one in every]) for label in labels
        ]
    chosen, titles = f"{results.verdict.deployment} {results.verdict.precision}", list(found)
    place = titles.index(chosen) if chosen in titles else None
    return PrecisionTable(titles=tuple(map(printable, titles)), chosen=place, rows=tuple(rows))


def _row(
    name: str, kind: Kind, objects: int, own: Sequence[MeanAveragePrecision | LabelPrecision | None]
) -> PrecisionRow:
    ap50 = tuple(_figure(None if one is None else one.ap50) for one in own)
    ap = tuple(_figure(None if one is None else one.ap) for one in own)
    return PrecisionRow(name=printable(name), kind=kind, objects=f"{objects:,}", ap50=ap50, ap=ap)


def _figure(estimate: AccuracyEstimate | None) -> PercentInterval:
    return PercentInterval() if estimate is None else PercentInterval(percent(estimate.value), interval(estimate))


def trained_heads(results: Results) -> tuple[TrainedHead, ...]:
    """Return the heads of detectors in their order; none of a classification study.

    Raises:
        EdgetlError: the study's facts on them have another shape.
    """
    trained = []
    for head in _heads(results.training):
        # A head that was never tuned with its trunk has one figure, that on the frozen trunk.
        tuned, frozen = head.frozen_ap50 is not None, head.frozen_ap50
        frozen = head.val_ap50 if frozen is None else frozen
        trained.append(
            TrainedHead(
                name=printable(head.name),
                labels=f"{len(head.classes):,}",
                known=printable(abridged(head.known)),
                untrained=percent(head.untrained_ap50),
                frozen=percent(frozen),
                tuned=percent(head.val_ap50) if tuned else UNKNOWN,
                gain=signed(head.val_ap50 - frozen) if tuned else UNKNOWN,
                epoch=f"{head.epochs}",
            )
        )
    return tuple(trained)


def training_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts to show beside `trained_heads`: of the heads of detectors no more than the anchors they share.

    Raises:
        EdgetlError: as `trained_heads`.
    """
    scales = dict.fromkeys(scale.anchors for head in _heads(training) for scale in head.scales)
    facts = {key: value for key, value in training.items() if key != "detectors"}
    if scales:
        facts["anchors"] = [", ".join(f"{width:.0f} x {height:.0f}" for width, height in own) for own in scales]
    return facts


def _heads(training: Mapping[str, Any]) -> tuple[DetectionHead, ...]:
    try:
        return _HEADS.validate_python(training.get("detectors", ()))
    except ValidationError as error:
        raise _unlike("training.detectors", error, "what finetune writes of each head") from None


def _unlike(what: str, error: ValidationError, expected: str) -> EdgetlError:
    return EdgetlError(
        f"results.json: {what} has {error.error_count()} faults, expected {expected}; run `edgetl report` again"
    )
