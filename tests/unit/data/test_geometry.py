from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import ImagePlacement, areas, clipped, image_placement

Boxes = npt.NDArray[np.float64]

SIDES = st.integers(1, 5000)
SHARES = st.tuples(*[st.floats(0.0, 1.0)] * 4)


@st.composite
def placements(draw: st.DrawFn) -> ImagePlacement:
    frame = {"width": draw(st.integers(16, 700)), "height": draw(st.integers(16, 700))}
    fit = draw(st.sampled_from(["letterbox", "stretch"]))
    place = image_placement((draw(SIDES), draw(SIDES)), Preprocessing(fit=fit, **frame))
    return ImagePlacement(place.image, place.corner, place.size, draw(st.booleans()))


def inside(place: ImagePlacement, shares: tuple[float, ...]) -> Boxes:
    """A box of the image, from shares of its sides."""
    (left, right), (top, bottom) = sorted(shares[:2]), sorted(shares[2:])
    return np.array([[left, top, right, bottom]]) * np.tile(place.image, 2)


@pytest.mark.parametrize(
    ("image", "corner", "size"),
    [
        ((640, 480), (0, 52), (416, 312)),
        ((480, 640), (52, 0), (312, 416)),
        ((416, 416), (0, 0), (416, 416)),
        ((100, 100), (0, 0), (416, 416)),
        # 768 x 576 of the classic test images; 577 * 416 / 768 is 312.54 and is truncated.
        ((768, 577), (0, 52), (416, 312)),
        ((1000, 333), (0, 139), (416, 138)),
        ((10_000, 3), (0, 207), (416, 1)),
    ],
)
def test_a_letterbox_is_the_one_of_darknet(
    image: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
) -> None:
    assert image_placement(image, Preprocessing(width=416, height=416, fit="letterbox")) == ImagePlacement(
        image, corner, size
    )


@given(SIDES, SIDES, st.integers(16, 700), st.integers(16, 700))
def test_a_letterbox_fills_one_side_and_keeps_the_shape(width: int, height: int, across: int, down: int) -> None:
    place = image_placement((width, height), Preprocessing(width=across, height=down, fit="letterbox"))
    assert place.size[0] == across or place.size[1] == down
    assert 1 <= place.size[0] <= across and 1 <= place.size[1] <= down
    factor = min(across / width, down / height)
    assert abs(place.size[0] - width * factor) <= 1 and abs(place.size[1] - height * factor) <= 1
    for corner, side, whole in zip(place.corner, place.size, (across, down), strict=True):
        assert 0 <= whole - (2 * corner + side) <= 1


def test_stretching_fills_the_input_whatever_the_shape() -> None:
    place = image_placement((640, 100), Preprocessing(width=320, height=256, fit="stretch"))
    assert place == ImagePlacement((640, 100), (0, 0), (320, 256))
    np.testing.assert_array_equal(place.to_input([[0, 0, 640, 100], [320, 25, 640, 50]])[1], [160, 64, 320, 128])


def test_a_crop_cuts_boxes_off_at_the_input() -> None:
    place = image_placement((200, 100), Preprocessing.square(50))
    assert place == ImagePlacement((200, 100), (-25, 0), (100, 50))
    np.testing.assert_array_equal(place.to_input([0, 0, 200, 100]), [[-25, 0, 75, 50]])


def test_mirrored_boxes_change_left_for_right_within_the_picture() -> None:
    place = ImagePlacement((100, 50), (10, 20), (200, 100), mirrored=True)
    np.testing.assert_array_equal(
        place.to_input([[0, 0, 10, 50], [90, 10, 100, 20]]), [[190, 20, 210, 120], [10, 40, 30, 60]]
    )
    np.testing.assert_array_equal(place.to_image([190, 20, 210, 120]), [[0, 0, 10, 50]])


@given(placements(), SHARES)
def test_boxes_come_back_from_the_input_to_a_small_part_of_a_pixel(
    place: ImagePlacement, shares: tuple[float, ...]
) -> None:
    boxes = inside(place, shares)
    np.testing.assert_allclose(place.to_image(place.to_input(boxes)), boxes, atol=1e-6)


@given(placements(), SHARES)
def test_boxes_stay_in_the_picture_and_keep_their_share_of_it(place: ImagePlacement, shares: tuple[float, ...]) -> None:
    boxes = inside(place, shares)
    found = place.to_input(boxes)
    low, high = np.array(place.corner), np.add(place.corner, place.size)
    assert (found[:, :2] >= low - 1e-9).all() and (found[:, 2:] <= high + 1e-9).all()
    np.testing.assert_allclose(areas(found) / np.prod(place.size), areas(boxes) / np.prod(place.image), atol=1e-9)


@given(placements(), st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 4), max_size=5))
def test_what_comes_back_is_clipped_to_the_image(place: ImagePlacement, boxes: list[tuple[float, ...]]) -> None:
    found = place.to_image(boxes)
    assert found.shape == (len(boxes), 4)
    assert (found >= 0).all() and (found <= np.tile(place.image, 2)).all()


@given(placements())
def test_an_image_of_the_named_detail_need_not_be_enlarged(place: ImagePlacement) -> None:
    share = place.detail / min(place.image)
    assert all(whole * share >= side - 1e-9 for whole, side in zip(place.image, place.size, strict=True))
    assert (place.detail - 1) / min(place.image) < max(np.divide(place.size, place.image))


def test_clipping_leaves_no_area_outside_the_window() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [-5, 4, 5, 6]])
    found = clipped(boxes, (2, 3, 8, 9))
    np.testing.assert_array_equal(found[[0, 2]], [[2, 3, 8, 9], [2, 4, 5, 6]])
    np.testing.assert_array_equal(areas(found), [36, 0, 6])
