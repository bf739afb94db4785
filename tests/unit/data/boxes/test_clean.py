from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.box_index import Box
from edgetl.data.boxes.box_listing import AnnotatedImage, Corners, RawBox
from edgetl.data.boxes.clean import clean
from edgetl.data.examine import FileFacts

FOUND = FileFacts("0" * 64, (100, 50))


def described(*corners: Corners, relative: bool = False, size: tuple[float, float] | None = None) -> AnnotatedImage:
    marks = tuple(RawBox(f"file: {number}", "car", box) for number, box in enumerate(corners))
    return AnnotatedImage("a.jpg", "file: image", marks, size, relative)


def states(*corners: Corners) -> list[tuple[str, str]]:
    return [(fault.kind, fault.done) for fault in clean(described(*corners), FOUND, {"car"})[1]]


def boxes(image: AnnotatedImage) -> tuple[Box, ...]:
    found, _ = clean(image, FOUND, {"car"})
    assert found is not None
    return found.boxes


def test_good_boxes_stay_as_they_are() -> None:
    image, faults = clean(described((0, 0, 100, 50), (10.25, 5, 11, 6.5), size=(100, 50)), FOUND, {"car"})
    assert image is not None and not faults
    assert (image.path, image.sha256, image.width, image.height) == ("a.jpg", "0" * 64, 100, 50)
    assert image.boxes[1] == Box(label="car", x1=10.25, y1=5, x2=11, y2=6.5)


def test_shares_become_pixels() -> None:
    (box,) = boxes(described((0.1, 0.2, 0.5, 1.0), relative=True))
    assert (box.x1, box.y1, box.x2, box.y2) == (10, 10, 50, 50)


@pytest.mark.parametrize("corners", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5), (200, 5, 200, 9)])
def test_boxes_without_area_are_left_out(corners: Corners) -> None:
    assert states(corners) == [("no area", "left out")]
    assert boxes(described(corners)) == ()


@pytest.mark.parametrize(
    "corners", [(100, 5, 120, 9), (-9, 5, 0, 9), (5, 50, 9, 60), (5, -9, 9, -2), (1e308, 0, 1e309, 9)]
)
def test_boxes_outside_are_left_out(corners: Corners) -> None:
    assert states(corners) == [("outside the image", "left out")]
    assert boxes(described(corners)) == ()


def test_boxes_partly_outside_are_clipped_and_reported() -> None:
    assert states((-5, 5, 20, 60)) == [("outside the image", "clipped")]
    (box,) = boxes(described((-5, 5, 20, 60)))
    assert (box.x1, box.y1, box.x2, box.y2) == (0, 5, 20, 50)


def test_what_rounding_puts_outside_is_clipped_without_a_word() -> None:
    assert states((-1, -0.3, 100.4, 51)) == []
    (box,) = boxes(described((-1, -0.3, 100.4, 51)))
    assert (box.x1, box.y1, box.x2, box.y2) == (0, 0, 100, 50)


def test_the_same_box_twice_is_one_object() -> None:
    image, faults = clean(described((1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 4)), FOUND, {"car"})
    assert image is not None and len(image.boxes) == 2
    assert [(fault.where, fault.kind, fault.detail) for fault in faults] == [
        ("file: 2", "duplicate id", "the same box and label as file: 0")
    ]


def test_an_image_of_another_size_than_annotated_is_left_out() -> None:
    image, faults = clean(described((1, 2, 3, 4), size=(50, 100)), FOUND, {"car"})
    assert image is None
    assert [(fault.where, fault.kind, fault.detail, fault.done) for fault in faults] == [
        ("file: image", "image size differs", "annotated as 50 x 100 pixels, a.jpg has 100 x 50", "left out")
    ]


def test_objects_of_other_labels_are_background_whatever_is_wrong_with_them() -> None:
    image, faults = clean(described((5, 5, 5, 9), (1, 2, 3, 4)), FOUND, {"bus"})
    assert image is not None and image.boxes == () and not faults


@given(st.lists(st.tuples(*[st.floats(allow_nan=False)] * 4), max_size=4), st.booleans())
def test_whatever_is_annotated_what_remains_lies_inside_and_has_an_area(corners: list[Corners], relative: bool) -> None:
    image, faults = clean(described(*corners, relative=relative), FOUND, {"car"})
    assert image is not None
    assert all(0 <= box.x1 < box.x2 <= 100 and 0 <= box.y1 < box.y2 <= 50 for box in image.boxes)
    assert len(image.boxes) + sum(fault.done == "left out" for fault in faults) == len(corners)
