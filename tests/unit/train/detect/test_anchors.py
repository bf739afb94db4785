from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from edgetl.errors import EdgetlError
from edgetl.train.detect.anchors import fit_anchors, mean_iou

Floats = NDArray[np.float64]

PLANTED = ((8.0, 10.0), (20.0, 14.0), (30.0, 60.0), (90.0, 40.0), (120.0, 130.0), (250.0, 200.0))


def sides_around(centres: tuple[tuple[float, float], ...], seed: int = 0, each: int = 40) -> Floats:
    random = np.random.default_rng(seed)
    return np.concatenate([np.array(one) * random.normal(1.0, 0.04, (each, 2)) for one in centres])


def road_like(seed: int) -> Floats:
    """Sides over two orders of magnitude, in all aspects."""
    random = np.random.default_rng(seed)
    size, aspect = np.exp(random.normal(3.5, 0.9, 400)), np.exp(random.normal(0.2, 0.5, 400))
    return np.stack([size * aspect, size / aspect], axis=1)


def test_clusters_that_are_there_are_found_and_go_to_the_scales_by_size() -> None:
    fitted = fit_anchors(sides_around(PLANTED), [2, 2, 2], seed=0)
    assert [len(anchors) for anchors in fitted] == [2, 2, 2]
    np.testing.assert_allclose([anchor for anchors in fitted for anchor in anchors], PLANTED, rtol=0.03)


def test_scales_may_have_different_numbers_of_anchors() -> None:
    fitted = fit_anchors(sides_around(PLANTED), [1, 3, 2], seed=0)
    assert [len(anchors) for anchors in fitted] == [1, 3, 2]
    assert [anchor for anchors in fitted for anchor in anchors] == sorted(
        (anchor for anchors in fitted for anchor in anchors), key=lambda one: one[0] * one[1]
    )


def test_the_same_boxes_in_another_order_give_the_same_anchors() -> None:
    sides = road_like(1)
    shuffled = np.random.default_rng(2).permutation(sides)
    assert fit_anchors(sides, [3, 3, 3], seed=7) == fit_anchors(shuffled, [3, 3, 3], seed=7)


@pytest.mark.parametrize("seed", range(4))
def test_they_fit_no_worse_than_the_centres_of_plain_k_means(seed: int) -> None:
    sides = road_like(seed)
    ours = [anchor for anchors in fit_anchors(sides, [3, 3, 3], seed=0) for anchor in anchors]
    theirs = KMeans(9, n_init=10, random_state=0).fit(sides).cluster_centers_
    assert mean_iou(sides, ours) >= mean_iou(sides, theirs)


def test_mean_overlap_is_that_of_the_best_anchor() -> None:
    sides = np.array([[10.0, 10.0], [20.0, 10.0], [40.0, 40.0]])
    expected = (1.0 + 0.5 + 10 * 20 / (40 * 40)) / 3
    assert mean_iou(sides, [(10.0, 10.0), (10.0, 20.0)]) == pytest.approx(expected)


@pytest.mark.parametrize("sides", [np.ones((50, 2)) * 12.0, road_like(0)[:4], np.empty((0, 2))])
def test_fewer_different_boxes_than_anchors_are_an_error(sides: Floats) -> None:
    different = len(np.unique(sides, axis=0))
    with pytest.raises(EdgetlError, match=rf"5 anchors .* {different} boxes of different sides; add images"):
        fit_anchors(sides, [5], seed=0)


def test_just_as_many_different_boxes_as_anchors_become_the_anchors() -> None:
    sides = np.repeat(np.array(PLANTED), 3, axis=0)
    assert fit_anchors(sides, [6], seed=3) == (PLANTED,)
