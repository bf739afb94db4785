from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgetl.artifacts.predictions import Classification, Detection, Prediction
from edgetl.data.pictures import annotated


def said(
    *detections: Detection, size: tuple[int, int] = (200, 100), labels: tuple[Classification, ...] = ()
) -> Prediction:
    return Prediction(path="a.png", width=size[0], height=size[1], detections=detections, labels=labels)


def found(*xyxy: float, label: str = "car", score: float = 0.9) -> Detection:
    left, top, right, bottom = xyxy
    return Detection(label=label, score=score, xyxy=(left, top, right, bottom))


def drawn(*detections: Detection, size: tuple[int, int] = (200, 100)) -> np.ndarray:
    return np.asarray(annotated(Image.new("RGB", size, "grey"), said(*detections, size=size)))


GREY = np.array([128, 128, 128])


def test_a_box_lies_on_its_own_edge_pixels() -> None:
    changed = (drawn(found(50, 40, 150, 90)) != GREY).any(axis=2)
    below_caption = changed[40:]
    rows, columns = np.flatnonzero(below_caption.any(axis=1)) + 40, np.flatnonzero(below_caption.any(axis=0))
    assert (columns.min(), columns.max(), rows.max()) == (50, 149, 89)
    assert changed[40, 50:150].all() and changed[89, 50:150].all() and changed[40:90, 50].all()
    assert not changed[45:85, 55:145].any(), "what is in the box can be seen"


def test_the_image_itself_is_left_alone() -> None:
    image = Image.new("RGB", (64, 64), "grey")
    annotated(image, said(found(8, 8, 56, 56), size=(64, 64)))
    assert (np.asarray(image) == GREY).all()


def test_a_label_has_its_colour_in_every_picture() -> None:
    one, other = drawn(found(50, 40, 150, 90)), drawn(found(10, 30, 90, 80), found(100, 50, 180, 90, label="bus"))
    assert (one[89, 60] == other[79, 60]).all()
    assert (other[79, 60] != other[89, 120]).any()


@pytest.mark.parametrize("box", [(0, 0, 20, 20), (190, 0, 200, 10), (190, 90, 200, 100), (0, 0, 200, 100)])
def test_a_caption_is_in_the_picture_wherever_the_box_is(box: tuple[float, float, float, float]) -> None:
    """A long name beside the right edge, or above the upper one, would not be seen."""
    inside, free = (drawn(found(*where, label="a bicycle")) for where in (box, (20, 50, 100, 90)))
    black_or_white = [np.isin(picture, (0, 255)).all(axis=2).sum() for picture in (inside, free)]
    assert black_or_white[0] == pytest.approx(black_or_white[1], rel=0.25)


def test_the_best_box_lies_above_the_others() -> None:
    best, other = found(20, 30, 100, 90, label="car"), found(20, 30, 100, 90, label="bus", score=0.5)
    np.testing.assert_array_equal(drawn(best, other)[89], drawn(best)[89])


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (4000, 3000)])
def test_lines_and_letters_grow_with_the_image(size: tuple[int, int]) -> None:
    width, height = size
    picture = drawn(found(0, 0, width, height, label="größer 标志"), size=size)
    assert picture.shape == (height, width, 3)
    if width == 4000:
        assert (picture[1000, :12] == picture[1000, 0]).all(), "at 4000 pixels a line of two would be lost"


def test_labels_of_an_image_are_listed_at_its_corner() -> None:
    guesses = tuple(Classification(head="combined", label=label, probability=0.5) for label in ("cat", "dog"))
    picture = annotated(
        Image.new("RGB", (200, 100), "grey"), Prediction(path="a", width=200, height=100, labels=guesses)
    )
    changed = (np.asarray(picture) != GREY).any(axis=2)
    assert changed[:30, :20].all() and not changed[60:].any() and not changed[:, 150:].any()
