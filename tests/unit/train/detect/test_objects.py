from __future__ import annotations

import numpy as np
import torch

from edgetl.data.box_views import ViewBoxes
from edgetl.train.detect.objects import objects


def view(*things: tuple[str, float, bool]) -> ViewBoxes:
    return ViewBoxes(
        np.array([(x, x, x + 4, x + 4) for _, x, _ in things], np.float32).reshape(-1, 4),
        tuple(label for label, _, _ in things),
        np.array([ignored for _, _, ignored in things], np.bool_),
    )


BATCH = [
    view(("car", 1, False), ("dog", 2, False), ("bus", 3, True), ("car", 4, False)),
    view(),
    view(("bus", 5, False)),
]


def test_a_head_sees_the_objects_of_its_own_classes_by_its_own_numbers() -> None:
    found = objects(BATCH, ("bus", "car"))
    assert found.images == 3
    assert found.image.tolist() == [0, 0, 2]
    assert found.classes.tolist() == [1, 1, 0]
    assert found.boxes[:, 0].tolist() == [1, 4, 5]


def test_ignored_objects_are_near_and_not_wanted_others_are_neither() -> None:
    found = objects(BATCH, ("bus", "car"))
    assert found.near[..., 0].tolist() == [[1, 3, 4], [0, 0, 0], [5, 0, 0]]


def test_a_batch_without_any_object_is_a_batch() -> None:
    for batch in ([view(), view()], [view(("dog", 1, False))]):
        found = objects(batch, ("car",))
        assert (found.images, found.boxes.shape, found.near.shape) == (len(batch), (0, 4), (len(batch), 0, 4))
        assert found.image.dtype == found.classes.dtype == torch.long
