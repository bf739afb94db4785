from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.measure.average_precision import ap50, as_accuracy, mean_average_precision, precisions
from edgetl.measure.matching import IOU_THRESHOLDS, Matches, match
from edgetl.measure.metrics import COMPUTATIONS

Array = NDArray[np.float32]

LABELS = ("car", "sign", "person", "dog")
GROUPS = {"vehicles": ("car",), "others": ("sign", "person"), "animals": ("dog",)}


@dataclass(frozen=True)
class Case:
    truth: list[BoxedImage]
    detections: list[Array]

    @property
    def matches(self) -> Matches:
        return match(self.truth, self.detections, LABELS)

    def permuted(self, order: Sequence[int]) -> Case:
        return Case([self.truth[n] for n in order], [self.detections[n] for n in order])


def image(*boxes: Box, name: str = "a") -> BoxedImage:
    return BoxedImage(path=f"{name}.jpg", sha256="0" * 64, width=640, height=480, boxes=boxes)


def box(x: float, y: float, width: float, height: float, label: str = "car", ignored: bool = False) -> Box:
    return Box(label=label, x1=x, y1=y, x2=x + width, y2=y + height, ignored=ignored)


def found(*rows: tuple[float, ...]) -> Array:
    """Rows of x, y, width, height, score and label, as detections."""
    array = np.array(rows, dtype=np.float32).reshape(-1, 6)
    array[:, 2:4] += array[:, :2]
    return array


def random_case(seed: int, images: int = 40, wrong: float = 4.0, ties: bool = False) -> Case:
    """Objects, of which some are ignored, most found more or less exactly, some twice; and wrong detections. No dog."""
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for n in range(images):
        k = rng.poisson(3)
        corners, sizes = rng.uniform(0, 400, (k, 2)), rng.uniform(8, 160, (k, 2))
        labels = rng.choice(3, k, p=(0.6, 0.3, 0.1))
        rows = [(*corners[i], *sizes[i], LABELS[labels[i]], bool(rng.random() < 0.1)) for i in range(k)]
        truth.append(image(*(box(*row) for row in rows), name=str(n)))
        copies = np.repeat(np.arange(k), rng.choice(3, k, p=(0.2, 0.6, 0.2)))
        right = np.c_[corners[copies], sizes[copies]] + rng.normal(0, 6, (len(copies), 4))
        others = np.c_[rng.uniform(0, 400, (m := rng.poisson(wrong), 2)), rng.uniform(8, 160, (m, 2))]
        scores = np.concatenate([rng.beta(4, 2, len(copies)), rng.beta(1.5, 4, m)])
        corrupt = np.where(rng.random(len(copies)) < 0.9, labels[copies], rng.integers(0, 4, len(copies)))
        kept = np.abs(np.concatenate([right, others]))
        rows_found = np.c_[kept, scores.round(1) if ties else scores, np.concatenate([corrupt, rng.integers(0, 4, m)])]
        detections.append(found(*rng.permutation(rows_found)))
    return Case(truth, detections)


def coco(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """The truth and the detections as COCO's JSON files have them."""
    boxes = [(n, one) for n, image in enumerate(case.truth) for one in image.boxes]
    rows = [(n, row) for n, rows in enumerate(case.detections) for row in rows.astype(float).tolist()]
    common = {
        "info": {},
        "images": [{"id": n, "width": 640, "height": 480} for n in range(len(case.truth))],
        "categories": [{"id": n, "name": label} for n, label in enumerate(LABELS)],
    }
    objects = [
        {
            "id": number,
            "image_id": n,
            "category_id": LABELS.index(one.label),
            "bbox": [one.x1, one.y1, one.x2 - one.x1, one.y2 - one.y1],
            "area": (one.x2 - one.x1) * (one.y2 - one.y1),
            "iscrowd": int(one.ignored),
        }
        for number, (n, one) in enumerate(boxes, 1)
    ]
    results = [
        {"image_id": n, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": points}
        | {"id": number, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
        for number, (n, (x1, y1, x2, y2, points, label)) in enumerate(rows, 1)
    ]
    return common | {"annotations": objects}, common | {"annotations": results}


def by_pycocotools(case: Case) -> Any:
    pytest.importorskip("pycocotools", reason="the reference is COCO's own evaluator")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = [COCO(), COCO()]
    for side, dataset in zip(sides, coco(case), strict=True):
        side.dataset = dataset
        side.createIndex()
    evaluator = COCOeval(*sides, iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


CASES = {
    "plain": random_case(0),
    "another": random_case(1, images=15),
    "equal scores": random_case(2, ties=True),
    "more than 100 of a label": random_case(3, images=12, wrong=600.0),
    "more images than are matched at once": random_case(4, images=260, wrong=1.0),
    "no detections": Case(random_case(5).truth, [found()] * 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_that_of_pycocotools(name: str) -> None:
    case = CASES[name]
    evaluator, measured = by_pycocotools(case), mean_average_precision(case.matches, GROUPS)
    assert measured.overall.ap.value == pytest.approx(evaluator.stats[0], abs=1e-12)
    assert measured.overall.ap50.value == pytest.approx(evaluator.stats[1], abs=1e-12)
    assert ap50(case.matches) == pytest.approx(evaluator.stats[1], abs=1e-12)
    # IoU thresholds x recalls x labels x areas x detections; the last two are all areas, and 100 of them.
    curves = evaluator.eval["precision"][..., 0, -1]
    for label in LABELS[:3]:
        curve, of_label = curves[:, :, LABELS.index(label)], measured.labels[label]
        assert of_label.ap and of_label.ap50
        assert of_label.ap.value == pytest.approx(curve.mean(), abs=1e-12)
        assert of_label.ap50.value == pytest.approx(curve[0].mean(), abs=1e-12)
    assert measured.groups["others"].ap.value == pytest.approx(curves[:, :, 1:3].mean(), abs=1e-12)
    assert measured.groups["others"].ap50.value == pytest.approx(curves[0, :, 1:3].mean(), abs=1e-12)


def test_a_sample_has_the_figure_of_a_test_set_with_its_images_as_often() -> None:
    case = random_case(7, images=25)
    drawn = np.random.default_rng(7).multinomial(25, np.full(25, 1 / 25), 4)
    sampled = precisions(case.matches, drawn.T.astype(np.int32), len(IOU_THRESHOLDS))
    for counts, expected in zip(drawn, np.moveaxis(sampled, 2, 0), strict=True):
        evaluator = by_pycocotools(case.permuted(np.repeat(np.arange(25), counts)))
        curves = evaluator.eval["precision"][..., 0, -1].mean(axis=1)
        np.testing.assert_allclose(expected, np.where(curves < 0, np.nan, curves), atol=1e-12)


def test_half_of_the_objects_found_with_a_duplicate_by_hand() -> None:
    truth = image(box(0, 0, 100, 100), box(200, 200, 100, 100))
    case = Case([truth], [found((0, 0, 100, 100, 0.9, 0), (0, 0, 100, 100, 0.8, 0))])
    # Precision 1 at the 51 recalls from 0 to 0.5, whatever the duplicate comes to; 0 beyond.
    assert ap50(case.matches) == pytest.approx(51 / 101)
    ranked_first = Case([truth], [found((400, 0, 50, 50, 0.95, 0), (0, 0, 100, 100, 0.9, 0))])
    assert ap50(ranked_first.matches) == pytest.approx(51 / 101 / 2)


def test_overlap_decides_up_to_which_threshold_a_detection_is_right() -> None:
    case = Case([image(box(0, 0, 100, 100))], [found((0, 0, 100, 62, 0.9, 0))])
    measured = mean_average_precision(case.matches, GROUPS)
    assert measured.overall.ap50.value == 1.0
    assert measured.overall.ap.value == pytest.approx(0.3)  # at IoU 0.50, 0.55 and 0.60


def test_the_right_label_is_part_of_being_right() -> None:
    case = Case([image(box(0, 0, 100, 100))], [found((0, 0, 100, 100, 0.9, 1))])
    assert ap50(case.matches) == 0.0


def test_what_lies_in_an_ignored_object_is_neither_right_nor_wrong() -> None:
    crowd, one = box(0, 0, 300, 300, ignored=True), box(400, 300, 50, 50)
    detections = found((10, 10, 40, 40, 0.9, 0), (60, 60, 40, 40, 0.8, 0), (400, 300, 50, 50, 0.7, 0))
    assert ap50(Case([image(crowd, one)], [detections]).matches) == 1.0
    assert ap50(Case([image(one)], [detections]).matches) == pytest.approx(1 / 3)
    # A crowd is no object that is to be found.
    measured = mean_average_precision(Case([image(crowd, one)], [detections]).matches, GROUPS)
    assert measured.labels["car"].objects == 1


def test_a_label_without_an_object_has_no_ap_and_is_in_no_mean() -> None:
    case = random_case(0)
    measured = mean_average_precision(case.matches, GROUPS | {"all": LABELS})
    assert (measured.labels["dog"].objects, measured.labels["dog"].ap, measured.labels["dog"].ap50) == (0, None, None)
    assert measured.groups.keys() == {"vehicles", "others", "all"}
    assert measured.groups["all"] == measured.overall
    shares = [one.ap50.value for one in measured.labels.values() if one.ap50]
    assert len(shares) == 3
    assert measured.overall.ap50.value == pytest.approx(np.mean(shares))
    assert {estimate.n for estimate in (measured.overall.ap, measured.groups["vehicles"].ap50)} == {40}


def test_where_nothing_is_detected_every_figure_is_nought_and_its_doubt_stays() -> None:
    truth = [image(box(0, 0, 10, 10), name=str(n)) for n in range(100)]
    overall = mean_average_precision(Case(truth, [found()] * 100).matches, GROUPS).overall
    # Clopper-Pearson for 0 of 100, two-sided 95 %, as tables have it.
    assert (overall.ap50.value, overall.ap50.low, overall.ap50.high) == pytest.approx((0.0, 0.0, 0.0362), abs=1e-4)


def test_where_everything_is_found_the_doubt_of_so_few_images_stays() -> None:
    truth = [image(box(0, 0, 10, 10), name=str(n)) for n in range(100)] + [image(name="empty")] * 50
    overall = mean_average_precision(
        Case(truth, [found((0, 0, 10, 10, 0.5, 0))] * 100 + [found()] * 50).matches, GROUPS
    ).overall
    assert (overall.ap.value, overall.ap.low, overall.ap.high) == pytest.approx((1.0, 1 - 0.0362, 1.0), abs=1e-4)


@pytest.mark.parametrize("boxes", [(), (box(0, 0, 10, 10, ignored=True),)])
def test_a_test_set_without_objects_has_no_figure(boxes: tuple[Box, ...]) -> None:
    matches = Case([image(*boxes)] * 3, [found((0, 0, 10, 10, 0.5, 0))] * 3).matches
    for measure in (
        ap50,
        lambda one: mean_average_precision(one, GROUPS),
        lambda one: COMPUTATIONS["mAP@0.5"].compare({"a": one, "b": one}),
    ):
        with pytest.raises(EdgetlError, match="no image has an object"):
            measure(matches)
    with pytest.raises(EdgetlError, match="no image has an object"):
        ap50(match([], [], LABELS))


def test_without_area_a_detection_is_wrong_and_an_object_is_not_found() -> None:
    case = Case([image(box(0, 0, 50, 50))], [found((10, 10, 0, 0, 0.9, 0), (0, 0, 50, 50, 0.8, 0))])
    assert ap50(case.matches) == pytest.approx(0.5)
    flat = Case([image(box(10, 10, 0, 20))], [found((10, 10, 0, 20, 0.9, 0))])
    assert ap50(flat.matches) == 0.0


@pytest.mark.parametrize(
    "row",
    [
        (0, 0, 10, 10, np.nan, 0),
        (0, 0, np.inf, 10, 0.5, 0),
        (0, 0, -1, 10, 0.5, 0),
        (0, 0, 10, -1, 0.5, 0),
        (0, 0, 10, 10, 0.5, 4),
        (0, 0, 10, 10, 0.5, -1),
        (0, 0, 10, 10, 0.5, 0.5),
    ],
)
def test_a_detection_that_cannot_be_is_refused_with_its_image(row: tuple[float, ...]) -> None:
    case = Case([image(name="first"), image(name="second")], [found(), found(row)])
    with pytest.raises(EdgetlError, match=r"^second\.jpg: a detection is not finite"):
        _ = case.matches


def test_an_object_of_a_foreign_label_is_refused_with_its_image() -> None:
    with pytest.raises(EdgetlError, match=r"^a\.jpg: .*'tram'.* no label of the study"):
        match([image(box(0, 0, 1, 1, "tram"))], [found()], LABELS)


def test_a_missing_evaluator_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(MissingExtraError, match=r"measuring a detector needs hotcoco.*'edgetl\[detect\]'"):
        _ = CASES["plain"].matches


def test_nothing_is_printed_or_logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    mean_average_precision(CASES["plain"].matches, GROUPS)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_every_pair_is_compared_once_on_the_same_images() -> None:
    a = random_case(11)
    weaker = Case(a.truth, [rows[: len(rows) * 3 // 4] for rows in a.detections])
    noisy = Case(a.truth, [np.concatenate([rows, found((500, 400, 9, 9, 0.9, 0))]) for rows in a.detections])
    cases = {"combined fp32": a, "combined int8": weaker, "shared fp32": noisy}
    matches = {title: case.matches for title, case in cases.items()}
    comparisons = COMPUTATIONS["mAP@0.5"].compare(matches)
    assert [(one.a, one.b) for one in comparisons] == [
        ("combined fp32", "combined int8"),
        ("combined fp32", "shared fp32"),
        ("combined int8", "shared fp32"),
    ]
    for one in comparisons:
        assert one.metric == "accuracy"
        assert one.difference == pytest.approx(ap50(matches[one.a]) - ap50(matches[one.b]))
        assert one.low <= one.difference <= one.high
    (swapped,) = COMPUTATIONS["mAP@0.5"].compare({"b": matches["combined int8"], "a": matches["combined fp32"]})
    assert swapped.difference == -(comparisons[0].difference or 0.0)
    assert (swapped.low, swapped.high) == pytest.approx((-comparisons[0].high, -comparisons[0].low))


def test_pairing_narrows_the_interval() -> None:
    a = random_case(12, images=100)
    b = Case(a.truth, [rows[1:] if n % 10 == 0 else rows for n, rows in enumerate(a.detections)])
    (one,) = COMPUTATIONS["mAP@0.5"].compare({"a": a.matches, "b": b.matches})
    alone = mean_average_precision(a.matches, GROUPS).overall.ap50
    assert one.high - one.low < (alone.high - alone.low) / 2


def test_two_that_agree_differ_by_nothing_but_leave_a_doubt() -> None:
    case = random_case(13, images=120)
    (one,) = COMPUTATIONS["mAP@0.5"].compare({"a": case.matches, "b": case.matches})
    with_objects = int((case.matches.objects.sum(axis=1) > 0).sum())
    assert (one.difference, -one.low) == (0.0, one.high)
    # Clopper & Pearson 1934: so common may be what none of them shows.
    assert one.high == pytest.approx(1 - 0.025 ** (1 / with_objects))


def test_matches_of_other_objects_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different objects"):
        COMPUTATIONS["mAP@0.5"].compare({"a": random_case(0).matches, "b": random_case(1).matches})


def test_map_at_a_half_stands_where_accuracy_does() -> None:
    measured = mean_average_precision(CASES["plain"].matches, GROUPS)
    accuracy = as_accuracy(measured)
    assert accuracy.overall == measured.overall.ap50
    assert accuracy.groups == {"vehicles": measured.groups["vehicles"].ap50, "others": measured.groups["others"].ap50}
    assert accuracy.masked == {}


def test_the_same_test_set_gives_the_same_intervals() -> None:
    assert mean_average_precision(random_case(1).matches, GROUPS) == mean_average_precision(
        random_case(1).matches, GROUPS
    )


@pytest.mark.slow
def test_intervals_hold_other_test_sets_about_as_often_as_they_say() -> None:
    measured = [mean_average_precision(random_case(seed, images=40).matches, GROUPS).overall for seed in range(50)]
    for metric in ([one.ap50 for one in measured], [one.ap for one in measured]):
        typical = np.mean([estimate.value for estimate in metric])
        assert np.mean([estimate.low <= typical <= estimate.high for estimate in metric]) >= 0.85


def test_an_interval_lies_about_its_figure_though_drawn_images_give_higher_ones() -> None:
    measured = [
        mean_average_precision(random_case(seed, images=60, wrong=20.0).matches, GROUPS).overall.ap for seed in range(6)
    ]
    assert np.mean([(one.value - one.low) / (one.high - one.low) for one in measured]) == pytest.approx(0.5, abs=0.04)


seeds = st.integers(0, 10_000)


@settings(max_examples=25)
@given(seeds, st.randoms(use_true_random=False))
def test_order_of_images_and_of_detections_changes_no_figure(seed: int, random: Any) -> None:
    case = random_case(seed, images=12)
    shuffled = case.permuted(random.sample(range(12), 12))
    turned = replace(
        shuffled, detections=[rows[random.sample(range(len(rows)), len(rows))] for rows in shuffled.detections]
    )
    once = np.ones((12, 1), dtype=np.int32)
    a, b = (precisions(one.matches, once, len(IOU_THRESHOLDS)) for one in (case, turned))
    np.testing.assert_allclose(a, b, atol=1e-12)


@settings(max_examples=25)
@given(seeds, st.integers(0, 11), st.integers(0, 2))
def test_a_worst_detection_that_hits_nothing_raises_no_figure(seed: int, where: int, label: int) -> None:
    case = random_case(seed, images=12)
    detections = list(case.detections)
    detections[where] = np.concatenate([detections[where], found((2000, 2000, 10, 10, 1e-6, label))])
    once = np.ones((12, 1), dtype=np.int32)
    before, after = (precisions(match(case.truth, rows, LABELS), once, 10) for rows in (case.detections, detections))
    assert (np.nan_to_num(after) <= np.nan_to_num(before)).all()


@settings(max_examples=25)
@given(seeds, st.integers(1, 8), st.floats(0.0, 5.0))
def test_an_interval_holds_its_figure_and_stays_in_bounds(seed: int, images: int, wrong: float) -> None:
    case = random_case(seed, images, wrong)
    if not case.matches.objects.any():
        return
    measured = mean_average_precision(case.matches, GROUPS)
    for one in (measured.overall, *measured.groups.values(), *measured.labels.values()):
        for estimate in (one.ap50, one.ap):
            assert estimate is None or 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    other = Case(case.truth, [rows[1:] for rows in case.detections])
    (pair,) = COMPUTATIONS["mAP@0.5"].compare({"a": case.matches, "b": other.matches})
    assert pair.difference is not None
    assert -1.0 <= pair.low <= pair.difference <= pair.high <= 1.0
