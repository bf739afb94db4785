"""The loss against Darknet's definition, read once more in plain Python: what it pulls every output towards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.data.box_views import ViewBoxes
from edgetl.train.detect.decode_boxes import InputSize
from edgetl.train.detect.loss import BoxLoss, YoloLoss
from edgetl.train.detect.objects import objects

Array = NDArray[np.float32]
Corners = tuple[float, float, float, float]

FRAME = InputSize(96, 64)
CLASSES = ("car", "bus")
CELLS = ((2, 3), (4, 6))
"""Rows and columns of each scale: the coarse one first, as Darknet's cfgs have it."""
ANCHORS = (((40.0, 30.0), (70.0, 50.0)), ((6.0, 8.0), (14.0, 12.0), (20.0, 30.0)))


@dataclass(frozen=True)
class Thing:
    """An object that somebody drew a box around."""

    box: Corners
    label: str = "car"
    ignored: bool = False

    @property
    def sides(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return right - left, bottom - top

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


Scene = list[Thing]


def scales(**how: Any) -> tuple[YoloScale, ...]:
    return tuple(YoloScale(anchors=anchors, **how) for anchors in ANCHORS)


def drawn(scene: Scene) -> ViewBoxes:
    return ViewBoxes(
        np.array([thing.box for thing in scene], np.float32).reshape(-1, 4),
        tuple(thing.label for thing in scene),
        np.array([thing.ignored for thing in scene], np.bool_),
    )


def raws_of(seed: int, images: int, spread: float = 1.0, classes: int = len(CLASSES)) -> list[Array]:
    random = np.random.default_rng(seed)
    shapes = [(images, len(a), 5 + classes, *cells) for a, cells in zip(ANCHORS, CELLS, strict=True)]
    return [random.normal(0.0, spread, shape).astype(np.float32) for shape in shapes]


def loss_of(
    raws: list[Array],
    scenes: list[Scene],
    how: dict[str, Any] | None = None,
    box: BoxLoss = "yolo",
    classes: tuple[str, ...] = CLASSES,
    frame: InputSize = FRAME,
) -> tuple[float, list[Array]]:
    """The loss, and for each raw output its gradient, N x A x (5 + C) x H x W."""
    inputs = [torch.from_numpy(raw.reshape(len(raw), -1, *raw.shape[3:])).requires_grad_() for raw in raws]
    own = tuple(YoloScale(anchors=scale.anchors, **(how or {})) for scale in scales())
    error = YoloLoss(own, frame, box)(inputs, objects([drawn(scene) for scene in scenes], classes))
    error.backward()
    gradients = [one.grad.numpy().reshape(raw.shape) for one, raw in zip(inputs, raws, strict=True)]
    return float(error.detach()), gradients


# --- Darknet's own ----------------------------------------------------------------------------------------------------


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


def overlap(a: Corners, b: Corners) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(across, 0.0) * max(down, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def predicted(values: Array, scale: int, anchor: int, row: int, column: int) -> Corners:
    """``get_yolo_box``."""
    rows, columns = CELLS[scale]
    x = (column + sigmoid(values[0])) / columns * FRAME.width
    y = (row + sigmoid(values[1])) / rows * FRAME.height
    w, h = (math.exp(v) * side for v, side in zip(values[2:4], ANCHORS[scale][anchor], strict=True))
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def place_of(thing: Thing) -> tuple[int, int, int, int]:
    """Scale, anchor, row and column that answer for an object (``best_n`` of ``forward_yolo_layer``)."""
    every = [(scale, anchor) for scale, anchors in enumerate(ANCHORS) for anchor in range(len(anchors))]
    scale, anchor = max(every, key=lambda one: overlap((0, 0, *thing.sides), (0, 0, *ANCHORS[one[0]][one[1]])))
    (x, y), (rows, columns) = thing.centre, CELLS[scale]
    return scale, anchor, int(y / FRAME.height * rows), int(x / FRAME.width * columns)


def deltas_of(raws: list[Array], scenes: list[Scene], classes: tuple[str, ...] = CLASSES) -> list[Array]:
    """``forward_yolo_layer`` of pjreddie's yolo_layer.c with ignore_thresh 0.5: minus the gradient of every output."""
    deltas = [np.zeros(raw.shape) for raw in raws]
    for image, scene in enumerate(scenes):
        own = [thing for thing in scene if thing.label in classes]
        for scale, raw in enumerate(raws):
            for anchor, row, column in np.ndindex(raw.shape[1], *raw.shape[3:]):
                values = raw[image, anchor, :, row, column]
                box = predicted(values, scale, anchor, row, column)
                if max((overlap(box, thing.box) for thing in own), default=0.0) <= 0.5:
                    deltas[scale][image, anchor, 4, row, column] = -sigmoid(values[4])
        for thing in (one for one in own if not one.ignored):
            scale, anchor, row, column = place_of(thing)
            values = raws[scale][image, anchor, :, row, column]
            delta = deltas[scale][image, anchor, :, row, column]
            (x, y), (rows, columns) = thing.centre, CELLS[scale]
            aims = x / FRAME.width * columns - column, y / FRAME.height * rows - row
            weight = 2.0 - thing.sides[0] * thing.sides[1] / (FRAME.width * FRAME.height)
            delta[:2] = [weight * (aim - sigmoid(v)) for aim, v in zip(aims, values[:2], strict=True)]
            ratios = np.divide(thing.sides, ANCHORS[scale][anchor])
            delta[2:4] = [weight * (math.log(ratio) - v) for ratio, v in zip(ratios, values[2:4], strict=True)]
            delta[4] = 1.0 - sigmoid(values[4])
            delta[5:] = [float(thing.label == name) - sigmoid(v) for name, v in zip(classes, values[5:], strict=True)]
    return deltas


def _box(x: float, y: float, width: float, height: float) -> Corners:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


THINGS = st.builds(
    Thing,
    st.builds(_box, st.floats(1, 95), st.floats(1, 63), st.floats(3, 90), st.floats(3, 60)),
    st.sampled_from([*CLASSES, "dog"]),
    st.booleans(),
)
SCENES = st.lists(st.lists(THINGS, max_size=4), min_size=1, max_size=3)


def apart(scenes: list[Scene]) -> bool:
    """No two objects of an image in one place: there Darknet forgets one of them, and here both count."""
    for scene in scenes:
        places = [place_of(thing) for thing in scene if thing.label in CLASSES and not thing.ignored]
        if len(set(places)) < len(places):
            return False
    return True


@settings(max_examples=60)
@given(scenes=SCENES, seed=st.integers(0, 1000), spread=st.sampled_from([0.1, 1.0]))
def test_gradients_are_darknets_deltas(scenes: list[Scene], seed: int, spread: float) -> None:
    assume(apart(scenes))
    raws = raws_of(seed, len(scenes), spread)
    _, gradients = loss_of(raws, scenes)
    for ours, theirs in zip(gradients, deltas_of(raws, scenes), strict=True):
        np.testing.assert_allclose(ours * len(scenes), -theirs, rtol=1e-3, atol=1e-4)


def entropy(aim: float) -> float:
    return -sum(p * math.log(p) for p in (aim, 1 - aim) if p > 0)


def perfect(scenes: list[Scene], sure: float = 12.0) -> list[Array]:
    """Raw outputs that say exactly what is drawn."""
    raws = [np.zeros_like(raw) for raw in raws_of(0, len(scenes))]
    for raw in raws:
        raw[:, :, 4] = -sure
    for image, scene in enumerate(scenes):
        for thing in scene:
            scale, anchor, row, column = place_of(thing)
            rows, columns = CELLS[scale]
            x, y = thing.centre[0] / FRAME.width * columns - column, thing.centre[1] / FRAME.height * rows - row
            ratios = np.divide(thing.sides, ANCHORS[scale][anchor])
            kinds = [sure if thing.label == name else -sure for name in CLASSES]
            place = [math.log(one / (1 - one)) for one in (x, y)]
            raws[scale][image, anchor, :, row, column] = [*place, *np.log(ratios), sure, *kinds]
    return raws


SCENE = [[Thing((10, 8, 50, 40)), Thing((60, 20, 73, 33), "bus")], [Thing((5, 5, 22, 31), "bus")], []]


@pytest.mark.parametrize("box", ["yolo", "ciou"])
def test_who_says_exactly_what_is_drawn_has_nothing_left_to_learn(box: BoxLoss) -> None:
    error, gradients = loss_of(perfect(SCENE), SCENE, box=box)
    floor = 0.0
    for thing in (one for scene in SCENE for one in scene if box == "yolo"):
        scale, _, row, column = place_of(thing)
        rows, columns = CELLS[scale]
        weight = 2.0 - thing.sides[0] * thing.sides[1] / (FRAME.width * FRAME.height)
        x, y = thing.centre[0] / FRAME.width * columns - column, thing.centre[1] / FRAME.height * rows - row
        floor += weight * (entropy(x) + entropy(y))  # cross entropy with a place within a cell never falls to zero
    assert error - floor / len(SCENE) == pytest.approx(0.0, abs=2e-3)
    if box == "yolo":  # 1 - IoU has a kink where it is zero
        assert max(float(np.abs(one).max()) for one in gradients) < 1e-3


@pytest.mark.parametrize("how", [{}, {"scale_xy": 1.2}, {"softmax": True}, {"activated": True, "scale_xy": 2.0}])
@settings(max_examples=40)
@given(thing=THINGS.filter(lambda thing: thing.label != "dog" and not thing.ignored), odd=st.booleans())
def test_a_head_is_pulled_towards_the_very_box_whatever_its_kind(how: dict[str, Any], thing: Thing, odd: bool) -> None:
    """The sides of cells may be no whole numbers of pixels, and centres may lie on their edges."""
    frame = InputSize(299, 299) if odd else FRAME
    if odd:
        cell = 299 / 6
        thing = Thing(_box(round(thing.centre[0] / 32) * cell + 1e-6, cell, *thing.sides), thing.label)
        assume(thing.centre[0] < 299)
    start = 0.5 if how.get("activated") else 0.0
    raws = [np.full_like(raw, start) for raw in raws_of(0, 1)]
    _, gradients = loss_of(raws, [[thing]], how, frame=frame)
    ((scale, anchor, row, column),) = [
        (scale, *place)
        for scale, one in enumerate(gradients)
        for place in np.argwhere(np.abs(one[0, :, 5:]).sum(axis=1) > 0).tolist()
    ]
    rows, columns = CELLS[scale]
    pull = gradients[scale][0, anchor, :4, row, column].astype(np.float64)
    pull /= 2.0 - thing.sides[0] * thing.sides[1] / (frame.width * frame.height)
    if how.get("activated"):
        place = 0.5 - pull[:2] * 0.25  # of binary cross entropy at one half: (1/2 - aim) / (1/2 * 1/2)
        sides = (2.0 * (0.5 - pull[2:])) ** 2 * ANCHORS[scale][anchor]
    else:
        place, sides = 0.5 - pull[:2], np.exp(-pull[2:]) * ANCHORS[scale][anchor]
    reach = how.get("scale_xy", 1.0)
    place = place * reach - (reach - 1.0) / 2.0
    centre = (column + place[0]) * frame.width / columns, (row + place[1]) * frame.height / rows
    assert centre == pytest.approx(thing.centre, abs=2e-2)
    assert tuple(sides) == pytest.approx(thing.sides, rel=1e-3)


def ciou_of(a: Corners, b: Corners) -> float:
    """1 - IoU + distance of centres / diagonal of the enclosing box + how the aspects differ (Zheng et al. 2020)."""
    across, down = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    between = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    v = 4 / math.pi**2 * (math.atan((b[2] - b[0]) / (b[3] - b[1])) - math.atan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
    iou = overlap(a, b)
    return 1 - iou + between / (across**2 + down**2) + v * v / (1 - iou + v)


def test_ciou_stands_for_the_four_values_of_a_box() -> None:
    thing, raws = Thing((20, 10, 60, 50)), raws_of(3, 1)
    scale, anchor, row, column = place_of(thing)
    values = raws[scale][0, anchor, :, row, column]
    box = predicted(values, scale, anchor, row, column)
    rows, columns = CELLS[scale]
    weight = 2.0 - thing.sides[0] * thing.sides[1] / (FRAME.width * FRAME.height)
    aims = thing.centre[0] / FRAME.width * columns - column, thing.centre[1] / FRAME.height * rows - row
    yolo = 0.0
    for aim, v in zip(aims, values[:2], strict=True):
        yolo -= weight * (aim * math.log(sigmoid(v)) + (1 - aim) * math.log(1 - sigmoid(v)))
    for side, own, v in zip(thing.sides, ANCHORS[scale][anchor], values[2:4], strict=True):
        yolo += weight * 0.5 * (v - math.log(side / own)) ** 2
    difference = loss_of(raws, [[thing]], box="ciou")[0] - loss_of(raws, [[thing]])[0]
    assert difference == pytest.approx(4 * 0.07 * ciou_of(box, thing.box) - yolo, abs=1e-3)


def test_the_order_of_images_and_of_objects_does_not_matter() -> None:
    raws = raws_of(1, 3)
    error, gradients = loss_of(raws, SCENE)
    turned = [raw[[2, 0, 1]] for raw in raws]
    other, others = loss_of(turned, [SCENE[2], SCENE[0][::-1], SCENE[1]])
    assert other == pytest.approx(error, rel=1e-6)
    for one, two in zip(gradients, others, strict=True):
        np.testing.assert_allclose(two, one[[2, 0, 1]], atol=1e-6)


@pytest.mark.parametrize("box", ["yolo", "ciou"])
@pytest.mark.parametrize("scenes", [[[], []], [[Thing((10, 10, 40, 40), "dog")], []]], ids=["nothing", "another label"])
def test_a_head_without_objects_learns_background_alone(scenes: list[Scene], box: BoxLoss) -> None:
    raws = raws_of(2, 2)
    error, gradients = loss_of(raws, scenes, box=box)
    expected = sum(float(np.log1p(np.exp(raw[:, :, 4].astype(np.float64))).sum()) for raw in raws)
    assert error == pytest.approx(expected / 2, rel=1e-5)
    for raw, one in zip(raws, gradients, strict=True):
        assert (one[:, :, 4] > 0).all(), "every place is told that it is none"
        assert not np.delete(one, 4, axis=2).any()
        assert raw.shape == one.shape


def test_an_ignored_object_is_neither_to_be_found_nor_held_against_who_finds_it() -> None:
    crowd = Thing((10, 8, 50, 40), ignored=True)
    raws = perfect([[Thing(crowd.box)]])
    scale, anchor, row, column = place_of(crowd)
    _, gradients = loss_of(raws, [[crowd]])
    assert not gradients[scale][0, anchor, :, row, column].any()
    _, without = loss_of(raws, [[]])
    assert without[scale][0, anchor, 4, row, column] > 0.9


def test_another_labels_object_is_background_to_a_head_that_finds_it() -> None:
    thing = Thing((10, 8, 50, 40), "bus")
    raws = [raw[:, :, :6] for raw in perfect([[thing]])]
    scale, anchor, row, column = place_of(thing)
    _, gradients = loss_of(raws, [[thing]], classes=("car",))
    assert gradients[scale][0, anchor, 4, row, column] > 0.9


def test_classes_that_exclude_each_other_share_one_probability() -> None:
    thing, raws = Thing((20, 10, 60, 50), "bus"), raws_of(3, 1)
    scale, anchor, row, column = place_of(thing)
    logits = raws[scale][0, anchor, 5:, row, column].astype(np.float64)
    _, gradients = loss_of(raws, [[thing]], {"softmax": True})
    expected = np.exp(logits) / np.exp(logits).sum() - np.array([0.0, 1.0])
    np.testing.assert_allclose(gradients[scale][0, anchor, 5:, row, column], expected, atol=1e-5)


def test_a_huge_or_sliver_of_a_box_gives_a_finite_loss() -> None:
    scenes = [[Thing((0, 0, 96, 64)), Thing((95.999, 63.999, 96, 64), "bus")]]
    for box in ("yolo", "ciou"):
        error, gradients = loss_of([raw * 50 for raw in raws_of(4, 1)], scenes, box=box)  # type: ignore[arg-type]
        assert math.isfinite(error)
        assert all(np.isfinite(one).all() for one in gradients)
