"""What a report says of detectors beside one figure: precision label by label, and how their heads were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edgetl.artifacts.detector_bundle import DetectionHead
from edgetl.artifacts.measurements import AccuracyEstimate
from edgetl.artifacts.results import AveragePrecision, LabelPrecision, MeanAveragePrecision, Results
from edgetl.errors import EdgetlError
from edgetl.report.table import UNKNOWN, interval
from edgetl.report.wording import abridged, percent, printable, signed

Groups = Mapping[str, tuple[str, ...]]
Kind = Literal["overall", "group", "label"]

_GROUPS = TypeAdapter(dict[str, tuple[str, ...]])
_HEADS = TypeAdapter(tuple[DetectionHead, ...])


@dataclass(frozen=True)
class PercentInterval:
    """A share in percent and its interval."""

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
    """mAP@0.5 on validation: of what a head began as, of the head on the frozen trunk, of it tuned with the trunk.

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
    """All labels, then each group and the labels in it. None where no detector was measured.

    Raises:
        EdgetlError: the study's facts have no groups, or groups of another shape.
    """
    found = {one.title: one.average_precision for one in results.deployments if one.average_precision is not None}
    if not found:
        return None
    groups = _groups(results.data)
    of_each = zip(*(_precisions(one, groups) for one in found.values()), strict=True)
    places = _places(next(iter(found.values())), groups)
    chosen, titles = f"{results.verdict.deployment} {results.verdict.precision}", list(found)
    return PrecisionTable(
        titles=tuple(map(printable, titles)),
        chosen=titles.index(chosen) if chosen in titles else None,
        rows=tuple(
            PrecisionRow(
                name=printable(name),
                kind=kind,
                objects=f"{objects:,}",
                ap50=tuple(_figure(one and one.ap50) for one in own),
                ap=tuple(_figure(one and one.ap) for one in own),
            )
            for (name, kind, objects), own in zip(places, of_each, strict=True)
        ),
    )


def _places(one: AveragePrecision, groups: Groups) -> Iterator[tuple[str, Kind, int]]:
    """What each row is of, and how many objects of it the test images have: all detectors are judged on the same."""
    objects = {label: found.objects for label, found in one.labels.items()}
    yield "all labels", "overall", sum(objects.values())
    for group, labels in groups.items():
        yield group, "group", sum(objects.get(label, 0) for label in labels)
        for label in labels:
            yield label, "label", objects.get(label, 0)


def _precisions(one: AveragePrecision, groups: Groups) -> Iterator[MeanAveragePrecision | LabelPrecision | None]:
    """In the order of `_places`."""
    yield one.overall
    for group, labels in groups.items():
        yield one.groups.get(group)
        yield from (one.labels.get(label) for label in labels)


def _figure(estimate: AccuracyEstimate | None) -> PercentInterval:
    return PercentInterval() if estimate is None else PercentInterval(percent(estimate.value), interval(estimate))


def trained_heads(results: Results) -> tuple[TrainedHead, ...]:
    """The heads of detectors in their order; of a classification study none.

    Raises:
        EdgetlError: the study's facts on them have another shape.
    """
    return tuple(_trained(head) for head in _heads(results.training))


def _trained(head: DetectionHead) -> TrainedHead:
    tuned = head.frozen_ap50 is not None
    frozen = head.val_ap50 if head.frozen_ap50 is None else head.frozen_ap50
    return TrainedHead(
        name=printable(head.name),
        labels=f"{len(head.classes):,}",
        known=printable(abridged(head.known)),
        untrained=percent(head.untrained_ap50),
        frozen=percent(frozen),
        tuned=percent(head.val_ap50) if tuned else UNKNOWN,
        gain=signed(head.val_ap50 - frozen) if tuned else UNKNOWN,
        epoch=f"{head.epochs}",
    )


def training_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be shown beside `trained_heads`: for all heads of detectors no more than the anchors they share.

    Raises:
        EdgetlError: as `trained_heads`.
    """
    scales = dict.fromkeys(scale.anchors for head in _heads(training) for scale in head.scales)
    facts = {key: value for key, value in training.items() if key != "detectors"}
    if scales:
        facts["anchors"] = [", ".join(f"{width:.0f} x {height:.0f}" for width, height in own) for own in scales]
    return facts


def _groups(data: Mapping[str, Any]) -> Groups:
    try:
        return _GROUPS.validate_python(data.get("groups"))
    except ValidationError as error:
        raise _unlike("data.groups", error, "the labels of each group") from None


def _heads(training: Mapping[str, Any]) -> tuple[DetectionHead, ...]:
    try:
        return _HEADS.validate_python(training.get("detectors", ()))
    except ValidationError as error:
        raise _unlike("training.detectors", error, "what finetune writes of each head") from None


def _unlike(what: str, error: ValidationError, expected: str) -> EdgetlError:
    return EdgetlError(
        f"results.json: {what} has {error.error_count()} faults, expected {expected}; run `edgetl report` again"
    )
