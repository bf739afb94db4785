"""What heads find on validation images: moved to their pixels, judged by label, written down and read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.errors import EdgetlError
from edgetl.stages.detect.validation import ValidationDetections, ValidationImages, read_val_detections

Array = NDArray[np.float32]
Place = Callable[..., BoxedImage]

LETTERBOX = Preprocessing(width=50, height=50, fit="letterbox")
"""The images of 100 x 80 pixels become 50 x 40, with 5 rows of bars above and below."""


def rows(*found: tuple[float, float, float, float, float, int]) -> Array:
    return np.array(found, np.float32).reshape(-1, 6)


def test_boxes_are_told_in_pixels_of_the_image_and_end_where_it_ends(image: Place) -> None:
    (found,) = ValidationImages([image(0)], LETTERBOX).on_images(
        [rows((5, 10, 25, 30, 0.5, 1), (-9, 0, 60, 60, 0.25, 0))]
    )
    expected = rows((10, 10, 50, 50, 0.5, 1), (0, 0, 100, 80, 0.25, 0))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_a_head_is_worth_what_it_finds_of_its_own_labels(image: Place) -> None:
    images = [image(0, ("car", 10, 10, 50, 50), ("stop", 60, 20, 90, 60)), image(1, ("stop", 0, 0, 30, 30))]
    validation = ValidationImages(images, LETTERBOX)
    found = [rows((5, 10, 25, 30, 0.9, 0)), rows()]
    assert validation.map50(("car",), found) == pytest.approx(1.0)
    assert validation.map50(("car", "stop"), found) == pytest.approx(0.5)
    assert validation.map50(("stop",), found) == 0.0


def test_a_head_whose_labels_are_on_no_image_cannot_be_judged(image: Place) -> None:
    with pytest.raises(EdgetlError, match="no image has an object"):
        ValidationImages([image(0, ("car", 10, 10, 50, 50))], LETTERBOX).map50(("bus",), [rows()])


LISTS = st.integers(0, 4).flatmap(lambda n: arrays(np.float32, (n, 6), elements=st.floats(-100, 100, width=32)))
HEADS = st.sampled_from(["combined", "rows", "vehicles@cascade", "größe", "counts"])


@settings(max_examples=50)
@given(st.integers(1, 4).flatmap(lambda n: st.dictionaries(HEADS, st.lists(LISTS, min_size=n, max_size=n), min_size=1)))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, heads: dict[str, list[Array]]) -> None:
    path = tmp_path_factory.mktemp("found") / "val_detections.npz"
    kept = np.arange(len(next(iter(heads.values())))) * 2
    path.write_bytes(ValidationDetections(kept, heads).to_bytes())
    found = read_val_detections(path)
    np.testing.assert_array_equal(found.rows, kept)
    assert set(found.heads) == set(heads)
    for name, lists in heads.items():
        for ours, theirs in zip(found.heads[name], lists, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert ValidationDetections(kept, heads).to_bytes() == path.read_bytes()


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="does not exist"):
        read_val_detections(tmp_path / "val_detections.npz")
