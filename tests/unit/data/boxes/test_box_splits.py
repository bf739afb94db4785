from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.data.boxes.box_splits import labels_of, split_boxes
from edgetl.errors import EdgetlError

SEEDS = st.integers(0, 5)
SHARES = st.sampled_from([0.1, 0.2, 0.33])


def image(content: int, labels: Iterable[str], copy: int = 0, ignored: Iterable[str] = ()) -> BoxedImage:
    ignored = tuple(ignored)
    boxes = tuple(Box(label=label, x1=0, y1=0, x2=1, y2=1, ignored=label in ignored) for label in (*labels, *ignored))
    return BoxedImage(path=f"{content}-{copy}.png", sha256=f"{content:064x}", width=9, height=9, boxes=boxes)


@st.composite
def data_sets(draw: st.DrawFn) -> list[BoxedImage]:
    """Images with none to four labels, some of them rare, some with copies; every label on five images at least."""
    sets = draw(st.lists(st.sets(st.sampled_from("abcdef"), max_size=4), min_size=12, max_size=60))
    for label in sorted(set().union(*sets)):
        sets += [{label}] * max(0, 5 - sum(label in own for own in sets))
    return [
        image(n, sorted(own), copy) for n, own in enumerate(sets) for copy in range(draw(st.sampled_from([1, 1, 2])))
    ]


def contents_by_label(images: Iterable[BoxedImage]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for one in images:
        for label in labels_of(one):
            found[label].add(one.sha256)
    return found


@given(data_sets(), SHARES, SHARES, SEEDS)
def test_every_image_is_in_one_split_and_copies_stay_together(
    images: list[BoxedImage], share_val: float, share_test: float, seed: int
) -> None:
    parts = split_boxes(images, share_val, share_test, seed)
    assert Counter(i.path for part in parts for i in part) == Counter(i.path for i in images)
    train, val, test = ({i.sha256 for i in part} for part in parts)
    assert not (train & val or train & test or val & test)


@given(data_sets(), SHARES, SHARES, SEEDS)
def test_every_label_has_objects_in_every_split(
    images: list[BoxedImage], share_val: float, share_test: float, seed: int
) -> None:
    labels = contents_by_label(images).keys()
    for part in split_boxes(images, share_val, share_test, seed):
        assert contents_by_label(part).keys() == labels


@given(data_sets(), SEEDS, st.randoms(use_true_random=False))
def test_order_and_paths_do_not_count(images: list[BoxedImage], seed: int, chance: random.Random) -> None:
    moved = [one.model_copy(update={"path": f"elsewhere/{n}"}) for n, one in enumerate(images)]
    chance.shuffle(moved)
    for before, after in zip(split_boxes(images, 0.2, 0.2, seed), split_boxes(moved, 0.2, 0.2, seed), strict=True):
        assert Counter(i.sha256 for i in before) == Counter(i.sha256 for i in after)


def test_shares_of_labels_and_of_images_are_kept() -> None:
    chance = random.Random(0)
    often = {"a": 0.7, "b": 0.4, "c": 0.15, "d": 0.05}
    images = [image(n, [label for label, share in often.items() if chance.random() < share]) for n in range(1000)]
    parts = split_boxes(images, 0.1, 0.2, seed=3)
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert len(part) == pytest.approx(1000 * share, abs=10)
        for label, contents in contents_by_label(images).items():
            found = len(contents_by_label(part)[label])
            assert found == pytest.approx(len(contents) * share, abs=max(3, 0.06 * len(contents) * share))


def test_another_seed_gives_another_split_and_a_share_of_zero_none() -> None:
    images = [image(n, "ab"[n % 2]) for n in range(100)]
    assert split_boxes(images, 0.1, 0.2, 0)[2] != split_boxes(images, 0.1, 0.2, 1)[2]
    assert [len(part) for part in split_boxes(images, 0.0, 0.2, 0)] == [80, 0, 20]
    assert [len(part) for part in split_boxes(images, 0.0, 0.0, 0)] == [100, 0, 0]


def test_images_without_objects_are_dealt_out_too() -> None:
    images = [image(n, "a" if n < 10 else "") for n in range(100)]
    assert [len(part) for part in split_boxes(images, 0.1, 0.2, 0)] == [70, 10, 20]


def test_a_label_on_two_images_cannot_be_in_three_splits() -> None:
    images = [image(n, "a") for n in range(9)] + [image(20, "b"), image(21, "b"), image(21, "b", copy=1)]
    with pytest.raises(EdgetlError, match=r"too few different images: 'b' 2; every label needs 3"):
        split_boxes(images, 0.1, 0.1, 0)
    assert split_boxes(images, 0.1, 0.0, 0)


def test_ignored_objects_do_not_count() -> None:
    images = [image(n, "a") for n in range(9)] + [image(n, "", ignored="b") for n in range(20, 24)]
    assert labels_of(images[-1]) == frozenset()
    with pytest.raises(EdgetlError, match="'b' 2"):
        split_boxes([*images, image(30, "b"), image(31, "b")], 0.1, 0.1, 0)


def test_a_label_that_would_miss_a_split_gets_an_image_that_another_can_spare() -> None:
    # All images of a, b and c carry two of the three: dealing out one label decides about the others.
    for seed in range(40):
        images = [image(n, labels) for n, labels in enumerate(["ab", "ab", "bc", "bc", "ca", "ca", "a", "b", "c"])]
        for part in split_boxes(images, 0.3, 0.3, seed):
            assert contents_by_label(part).keys() == set("abc")
