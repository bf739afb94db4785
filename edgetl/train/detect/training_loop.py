"""Training of the detection heads of all deployments together: every batch of maps is read once for all of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.arrays import BoolArray, Float32Array, Int64Array
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.config import DetectionSettings, NmsSettings
from edgetl.data.box_views import ViewBoxes
from edgetl.train.detect.decode_boxes import InputSize, detections
from edgetl.train.detect.loss import YoloLoss
from edgetl.train.detect.objects import objects
from edgetl.train.parallel import deterministic, device, each, learning_rate_factor, threads

ValidationScore = Callable[[Sequence[str], Sequence[Float32Array]], float]
"""(classes, detections of every validation image in pixels of the input) to mAP@0.5."""


@dataclass(frozen=True)
class FeatureMapBatch:
    """The maps of some images (n x D x H x W for each scale), the images' positions, and their boxes."""

    maps: tuple[Tensor, ...]
    rows: Int64Array
    drawn: Sequence[ViewBoxes]


class FeatureMapSource(Protocol):
    """A source of the maps of a split's images."""

    def __len__(self) -> int:
        """The number of images."""

    def epoch(self, rng: np.random.Generator) -> Iterator[FeatureMapBatch]:
        """All images in random order, each in a random one of its views."""

    def plain(self) -> Iterator[FeatureMapBatch]:
        """All images in order as they are."""


class FirstLevelOutputs(Protocol):
    """A function that gives a first level's raw outputs for a batch."""

    def __call__(self, batch: FeatureMapBatch, training: bool) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class HeadStart:
    """A head before training: a module from maps (and a first level's raw outputs) to raw outputs, as `YoloHead` is.

    Those of its parameters are trained that require a gradient. It does not see the training images that it
    ``leaves_out`` (truth values). ``learning_rate`` replaces that of the settings.
    """

    classes: tuple[str, ...]
    scales: tuple[YoloScale, ...]
    head: nn.Module
    learning_rate: float | None = None
    first: FirstLevelOutputs | None = None
    leaves_out: BoolArray | None = None


@dataclass(frozen=True)
class FittedHead:
    """A head at its best epoch; epoch 0 is the untrained head."""

    head: nn.Module
    epochs: int
    ap50: float
    untrained_ap50: float


def fit_heads(
    starts: Mapping[str, HeadStart],
    train: FeatureMapSource,
    val: FeatureMapSource,
    settings: DetectionSettings,
    frame: InputSize,
    validation_score: ValidationScore,
    seed: int,
    watch: Callable[[float], object] = bool,
) -> dict[str, FittedHead]:
    """Train heads on maps, all of them on the same batches. One seed on one machine gives the same bytes.

    Args:
        validation_score: scores a head's detections on validation, to choose the epoch.
        watch: is called with each step's part of an epoch; they sum to ``settings.epochs`` at most.
    """
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    trainees = {name: HeadInTraining(start, settings, frame, steps) for name, start in starts.items()}
    rng = np.random.default_rng(seed)
    with deterministic(), threads(len(trainees)) as pool:
        _assess(trainees.values(), pool, val, settings.nms, validation_score, 0)
        for epoch in range(1, settings.epochs + 1):
            active = [one for one in trainees.values() if one.waited < settings.patience]
            for batch in train.epoch(rng) if active else ():
                each(active, pool, HeadInTraining.step, batch)
                watch(len(batch.rows) / len(train))
            _assess(active, pool, val, settings.nms, validation_score, epoch)
    return {name: one.fitted() for name, one in trainees.items()}


def find(
    start: HeadStart, fitted: FittedHead, source: FeatureMapSource, suppression: NmsSettings, frame: InputSize
) -> list[Float32Array]:
    """The detections of a trained head on all images of a source: K x 6 each, in pixels of the input."""
    result: list[Float32Array] = []
    head = copy.deepcopy(fitted.head).to(device())
    with torch.no_grad():
        for batch in source.plain():
            first_level_raws = () if start.first is None else start.first(batch, training=False)
            raws = head([one.to(device()) for one in batch.maps], first_level_raws)
            result += detections(raws, start.scales, frame, suppression)
    return result


def _assess(
    trainees: Iterable[HeadInTraining],
    pool: Executor,
    val: FeatureMapSource,
    suppression: NmsSettings,
    validation_score: ValidationScore,
    epoch: int,
) -> None:
    """Score heads on validation after an epoch; each batch of maps is read once for all."""
    detected: dict[HeadInTraining, list[Float32Array]] = {one: [] for one in trainees}

    def detect(one: HeadInTraining, batch: FeatureMapBatch) -> None:
        detected[one] += one.detect(batch, suppression)

    for batch in val.plain() if detected else ():
        each(detected, pool, detect, batch)
    for one, boxes in detected.items():
        one.judge(epoch, validation_score(one.start.classes, boxes))


@dataclass(eq=False)
class HeadInTraining:
    """A head while it is trained; the best epoch is kept. ``waited`` counts the epochs since then."""

    start: HeadStart
    settings: DetectionSettings
    frame: InputSize
    steps: int
    waited: int = 0
    scores: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.head = copy.deepcopy(self.start.head).to(device()).eval()
        self._best = copy.deepcopy(self.head.state_dict())
        self._best_epoch = 0
        self._loss = YoloLoss(self.start.scales, self.frame, self.settings.loss)
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in self.head.parameters() if parameter.requires_grad],
            weight_decay=self.settings.weight_decay,
        )
        rate = self.start.learning_rate or self.settings.learning_rate
        assert rate is not None, "the stage has put in the default of its kind of head"
        self._learning_rate, self._taken = rate, 0

    def step(self, batch: FeatureMapBatch) -> None:
        """Learn from a batch."""
        # A batch whose images are all left out counts too: all heads keep to one schedule.
        self._taken += 1
        if self.start.leaves_out is not None:
            kept: list[int] = np.flatnonzero(~self.start.leaves_out[batch.rows]).tolist()
            maps = tuple(one[kept] for one in batch.maps)
            batch = FeatureMapBatch(maps, batch.rows[kept], [batch.drawn[row] for row in kept])
        if not len(batch.rows):
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * learning_rate_factor((self._taken - 0.5) / self.steps)
        self._optimizer.zero_grad()
        error = self._loss(self._raws(batch, training=True), objects(batch.drawn, self.start.classes).to(device()))
        error.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def detect(self, batch: FeatureMapBatch, suppression: NmsSettings) -> list[Float32Array]:
        """The head's detections on a batch, in pixels of the input."""
        with torch.no_grad():
            return detections(self._raws(batch, training=False), self.start.scales, self.frame, suppression)

    def judge(self, epoch: int, ap50: float) -> None:
        """Record an epoch's mAP@0.5, and keep the head if it is the best so far."""
        if not self.scores or ap50 > max(self.scores):
            self._best, self._best_epoch, self.waited = copy.deepcopy(self.head.state_dict()), epoch, 0
        else:
            self.waited += 1
        self.scores.append(ap50)

    def fitted(self) -> FittedHead:
        self.head.load_state_dict(self._best)
        head = self.head.cpu().eval().requires_grad_(False)
        return FittedHead(head, self._best_epoch, self.scores[self._best_epoch], self.scores[0])

    def _raws(self, batch: FeatureMapBatch, training: bool) -> tuple[Tensor, ...]:
        maps = [one.to(device()) for one in batch.maps]
        first_level_raws = () if self.start.first is None else self.start.first(batch, training)
        raws: tuple[Tensor, ...] = self.head(maps, first_level_raws)
        return raws


class OutOfFold:
    """A first level that judges each training image by a head that has not seen it.

    Otherwise the second level would trust what the first one merely remembers (Wolpert 1992, Stacked generalization).
    """

    def __init__(self, head: nn.Module, folds: Sequence[nn.Module], fold: Int64Array) -> None:
        """``fold`` gives for each training image the number of the head that was trained without it."""
        # Copies: the heads stay where the exporter looks for them.
        self._head, *self._folds = (copy.deepcopy(one).to(device()) for one in (head, *folds))
        self._fold = fold

    def __call__(self, batch: FeatureMapBatch, training: bool) -> tuple[Tensor, ...]:
        maps = [one.to(device()) for one in batch.maps]
        with torch.no_grad():
            if not training:
                whole: tuple[Tensor, ...] = self._head(maps)
                return whole
            own = torch.from_numpy(self._fold[batch.rows]).to(device())
            every = [one(maps) for one in self._folds]
            return tuple(
                torch.stack(raws)[own, torch.arange(len(own), device=own.device)] for raws in zip(*every, strict=True)
            )
