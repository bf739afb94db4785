from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.ops import batched_nms

from edgetl.artifacts.predictions import merge_detections

Array = NDArray[np.float32]


@st.composite
def lists(draw: st.DrawFn) -> Array:
    """Detections on a coarse grid, so that boxes coincide, scores tie, and sums and products are exact.

    An overlap of 0.1 is none to ask for: as float32, which torchvision compares with a double, it is above 0.1.
    """
    whole = st.integers(0, 12)
    rows = draw(st.lists(st.tuples(whole, whole, whole, whole, st.integers(1, 8), st.integers(0, 2)), max_size=12))
    return np.array([(x, y, x + w, y + h, score / 8, label) for x, y, w, h, score, label in rows], np.float32).reshape(
        -1, 6
    )


@settings(max_examples=300)
@given(st.lists(lists(), max_size=3), st.sampled_from([0.125, 0.45, 0.5, 1.0]), st.sampled_from([1, 3, 100]))
def test_one_list_is_what_torchvision_makes_of_all(parts: list[Array], overlap: float, most: int) -> None:
    every = torch.from_numpy(np.concatenate([np.zeros((0, 6), np.float32), *parts]))
    every = every[every[:, 4].argsort(descending=True, stable=True)]
    expected = every[batched_nms(every[:, :4], every[:, 4], every[:, 5], overlap)[:most]]
    np.testing.assert_array_equal(merge_detections(parts, overlap, most), expected.numpy())


def test_boxes_that_two_engines_found_are_there_once_and_other_labels_stay() -> None:
    first = np.array([[0, 0, 10, 10, 0.8, 0], [0, 0, 10, 10, 0.7, 1]], np.float32)
    second = np.array([[1, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.1, 0]], np.float32)
    np.testing.assert_array_equal(merge_detections([first, second], 0.45, 100), [second[0], first[1], second[1]])


@pytest.mark.parametrize("parts", [[], [np.zeros((0, 6), np.float32)] * 2])
def test_nothing_found_is_an_empty_list(parts: list[Array]) -> None:
    assert merge_detections(parts, 0.45, 100).shape == (0, 6)


def test_what_is_given_is_left_alone() -> None:
    part = np.array([[0, 0, 1, 1, 0.1, 0], [0, 0, 1, 1, 0.9, 0]], np.float32)
    merge_detections([part], 0.45, 100)[:] = -1
    assert part[:, 4].tolist() == [np.float32(0.1), np.float32(0.9)]
