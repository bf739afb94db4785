"""Heads of all deployments trained together: reproducible, each as if alone, never worse than untrained."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.config import DetectionSettings, NmsSettings
from edgetl.data.box_views import ViewBoxes
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match
from edgetl.train.detect.decode_boxes import InputSize
from edgetl.train.detect.training_loop import FeatureMapBatch, FittedHead, HeadStart, OutOfFold, find, fit_heads
from edgetl.train.detect.yolo_heads import YoloHead, pyramid_head, second_level_head

Array = NDArray[np.float32]
Rows = NDArray[np.int64]

SIDE, CELLS, CHANNELS = 32, 4, 6
FRAME = InputSize(SIDE, SIDE)
LABELS = ("car", "bus", "stop")
SCALE = YoloScale(anchors=((8.0, 8.0), (14.0, 14.0)))
SETTINGS = DetectionSettings(epochs=6, patience=6, learning_rate=0.02, batch_size=4)

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Memory:
    """Images as maps that lie in memory: objects show in the map where they are."""

    maps: Tensor
    drawn: Sequence[ViewBoxes]
    batch_size: int = 4
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.maps)

    def epoch(self, rng: np.random.Generator) -> Iterator[FeatureMapBatch]:
        yield from self._batches(rng.permutation(len(self)))

    def plain(self) -> Iterator[FeatureMapBatch]:
        yield from self._batches(np.arange(len(self)))

    def _batches(self, order: Rows) -> Iterator[FeatureMapBatch]:
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield FeatureMapBatch((self.maps[rows],), rows, [self.drawn[row] for row in rows])


def source(images: int, seed: int) -> Memory:
    random = np.random.default_rng(seed)
    maps, drawn = random.normal(0.0, 0.1, (images, CHANNELS, CELLS, CELLS)), []
    for image in range(images):
        places = random.choice(CELLS * CELLS, 2, replace=False)
        labels = [LABELS[n] for n in random.integers(len(LABELS), size=2)]
        boxes = []
        for place, label in zip(places, labels, strict=True):
            row, column = divmod(int(place), CELLS)
            maps[image, LABELS.index(label), row, column] += 2.0
            maps[image, 3 + LABELS.index(label), row, column] += 1.0
            centre = (np.array([column, row]) + 0.5) * (SIDE / CELLS)
            boxes.append([*(centre - 4.0), *(centre + 4.0)])
        drawn.append(ViewBoxes(np.array(boxes, np.float32), tuple(labels), np.zeros(2, np.bool_)))
    return Memory(torch.from_numpy(maps.astype(np.float32)), drawn)


TRAIN, VAL = source(24, 0), source(12, 1)


def worth_on(val: Memory) -> Any:
    """mAP@0.5 by the evaluator that the product uses."""

    def worth(classes: Sequence[str], found: Sequence[Array]) -> float:
        images = [
            BoxedImage(
                path=str(n),
                sha256="",
                width=SIDE,
                height=SIDE,
                boxes=tuple(
                    Box(label=label, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2))
                    for label, (x1, y1, x2, y2) in zip(one.labels, one.boxes, strict=True)
                    if label in classes
                ),
            )
            for n, one in enumerate(val.drawn)
        ]
        return ap50(match(images, found, classes))

    return worth


def start(classes: tuple[str, ...] = LABELS, **more: Any) -> HeadStart:
    return HeadStart(classes, (SCALE,), pyramid_head([CHANNELS], 8, (SCALE,), len(classes), seed=0), **more)


def fit(starts: Mapping[str, HeadStart], train: Memory = TRAIN, seed: int = 5, **changes: Any) -> dict[str, FittedHead]:
    settings = SETTINGS.model_copy(update=changes)
    train = replace(train, batch_size=settings.batch_size)
    return fit_heads(starts, train, VAL, settings, FRAME, worth_on(VAL), seed)


def state(one: FittedHead) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in one.head.state_dict().items()}


def test_a_head_learns_what_the_maps_show() -> None:
    (fitted,) = fit({"combined": start()}, epochs=20, patience=20).values()
    assert fitted.untrained_ap50 < 0.05
    assert fitted.ap50 > 0.8
    assert fitted.epochs > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, two, other = (fit({"combined": start(), "signs": start(("stop",))}, seed=seed) for seed in (5, 5, 6))
    for name in one:
        assert state(one[name]) == state(two[name])
        assert (one[name].epochs, one[name].ap50) == (two[name].epochs, two[name].ap50)
    assert state(one["combined"]) != state(other["combined"])


def test_heads_trained_together_are_those_trained_alone() -> None:
    starts = {"combined": start(), "vehicles": start(("car", "bus")), "signs": start(("stop",))}
    together = fit(starts)
    for name, alone in starts.items():
        (fitted,) = fit({name: alone}).values()
        assert state(fitted) == state(together[name])
        assert (fitted.epochs, fitted.ap50) == (together[name].epochs, together[name].ap50)


def test_a_head_that_has_stopped_does_not_change_what_the_others_learn() -> None:
    late = start()
    with torch.no_grad():
        for parameter in late.head.parameters():
            parameter.zero_()
    early = {"combined": start(), "stuck": replace(late, head=late.head.requires_grad_(True))}
    together = fit(early, patience=1, epochs=8)
    (alone,) = fit({"combined": start()}, patience=1, epochs=8).values()
    assert state(alone) == state(together["combined"])


def test_the_best_epoch_is_kept_and_it_is_what_the_head_finds() -> None:
    begin = start()
    (fitted,) = fit({"combined": begin}).values()
    found = find(begin, fitted, VAL, SETTINGS.nms, FRAME)
    assert worth_on(VAL)(LABELS, found) == fitted.ap50
    assert not any(parameter.requires_grad for parameter in fitted.head.parameters())


def test_a_head_that_only_gets_worse_stays_as_it_was() -> None:
    good = fit({"combined": start()}, epochs=20, patience=20)["combined"]
    begin = replace(start(), head=good.head.requires_grad_(True))
    before = state(good)
    (fitted,) = fit({"combined": begin}, learning_rate=50.0, epochs=3).values()
    assert fitted.epochs == 0
    assert fitted.ap50 == fitted.untrained_ap50 == good.ap50
    assert state(fitted) == before


def test_training_does_not_touch_the_head_it_starts_from() -> None:
    begin = start()
    before = {name: value.clone() for name, value in begin.head.state_dict().items()}
    fit({"combined": begin}, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in begin.head.state_dict().items())


def test_only_parameters_that_want_a_gradient_are_trained() -> None:
    begin = start()
    begin.head.body.requires_grad_(False)  # type: ignore[union-attr]
    (fitted,) = fit({"combined": begin}, epochs=20, patience=20, learning_rate=0.1).values()
    assert fitted.epochs > 0
    for name, value in fitted.head.state_dict().items():
        assert torch.equal(value, begin.head.state_dict()[name]) == name.startswith("body.")


def test_a_head_may_have_a_rate_of_its_own() -> None:
    own = fit({"combined": replace(start(), learning_rate=0.005)})["combined"]
    assert state(own) == state(fit({"combined": start()}, learning_rate=0.005)["combined"])
    assert state(own) != state(fit({"combined": start()})["combined"])


def test_after_so_many_epochs_without_a_better_one_no_more_maps_are_read() -> None:
    reads = []

    class Counting(Memory):
        def epoch(self, rng: np.random.Generator) -> Iterator[FeatureMapBatch]:
            reads.append(None)
            return super().epoch(rng)

    counting = Counting(TRAIN.maps, TRAIN.drawn)
    settings = SETTINGS.model_copy(update={"epochs": 40, "patience": 3, "learning_rate": 1e-9})
    fit_heads({"combined": start()}, counting, VAL, settings, FRAME, worth_on(VAL), 0)
    assert len(reads) == 3


def test_progress_is_told_in_epochs() -> None:
    told: list[float] = []
    settings = SETTINGS.model_copy(update={"epochs": 2})
    fit_heads({"combined": start()}, TRAIN, VAL, settings, FRAME, worth_on(VAL), 0, told.append)
    assert sum(told) == pytest.approx(2.0)


def other_images(left_out: NDArray[np.bool_]) -> Memory:
    """The training images with others, and other objects, in the place of some."""
    maps, drawn = TRAIN.maps.clone(), list(TRAIN.drawn)
    for row in np.flatnonzero(left_out):
        maps[row] = 7.0
        drawn[row] = ViewBoxes(np.array([[0, 0, 30, 30]], np.float32), ("car",), np.zeros(1, np.bool_))
    return Memory(maps, drawn)


def test_images_that_a_head_leaves_out_have_no_say_in_it() -> None:
    left_out = np.arange(len(TRAIN)) % 3 == 1
    starts = {"combined": start(), "combined#1": start(leaves_out=left_out)}
    one, two = fit(starts), fit(starts, other_images(left_out))
    assert state(one["combined#1"]) == state(two["combined#1"])
    assert state(one["combined"]) != state(two["combined"])


def test_a_batch_of_nothing_but_left_out_images_is_passed_over_in_silence() -> None:
    left_out = np.arange(len(TRAIN)) < len(TRAIN) - 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (fitted,) = fit({"combined#0": start(leaves_out=left_out)}, batch_size=1, epochs=2).values()
    assert all(torch.isfinite(value).all() for value in fitted.head.state_dict().values())


def constant(value: float) -> YoloHead:
    """A head that says the same of every place."""
    head = pyramid_head([CHANNELS], 8, (SCALE,), 1, seed=0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.outputs[0].bias.fill_(value)  # type: ignore[operator, union-attr]
    return head


FOLD = np.arange(len(TRAIN)) % 3


def test_in_training_every_image_is_judged_by_the_head_that_has_not_seen_it() -> None:
    first = OutOfFold(constant(9.0), [constant(float(n)) for n in range(3)], FOLD)
    for batch in TRAIN.epoch(np.random.default_rng(0)):
        (said,) = first(batch, training=True)
        assert said.shape == (len(batch.rows), 12, CELLS, CELLS)
        for row, one in zip(batch.rows, said, strict=True):
            assert (one == float(FOLD[row])).all()


def test_elsewhere_the_first_level_is_the_head_that_is_shipped() -> None:
    first = OutOfFold(constant(9.0), [constant(float(n)) for n in range(3)], FOLD)
    for batch in VAL.plain():
        (said,) = first(batch, training=False)
        assert (said == 9.0).all()


def test_a_second_level_learns_from_what_the_first_one_says() -> None:
    """The first level knows the answer, the maps tell nothing: what the second one knows it has from there."""
    blind = [Memory(torch.zeros_like(one.maps), one.drawn) for one in (TRAIN, VAL)]

    class Answer:
        def __call__(self, batch: FeatureMapBatch, training: bool) -> tuple[Tensor, ...]:
            said = torch.zeros(len(batch.rows), 16, CELLS, CELLS)
            said[:, :CHANNELS] = (TRAIN if training else VAL).maps[batch.rows]
            return (said,)

    head = second_level_head(start(("stop",)).head, [16])  # type: ignore[arg-type]
    begin = HeadStart(("stop",), (SCALE,), head, first=Answer())
    settings = SETTINGS.model_copy(update={"epochs": 20, "patience": 20})
    fitted = fit_heads({"signs": begin}, blind[0], blind[1], settings, FRAME, worth_on(VAL), 0)["signs"]
    assert fitted.ap50 > 0.8
    found = find(begin, fitted, blind[1], NmsSettings(), FRAME)
    assert worth_on(VAL)(("stop",), found) == fitted.ap50
