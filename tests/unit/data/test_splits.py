from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgetl.artifacts.data_index import Sample
from edgetl.data.splits import ambiguous, split, split_duplicates
from edgetl.errors import EdgetlError


def sample(content: int, label: str, copy: int = 0) -> Sample:
    return Sample(path=f"{label}/{content}-{copy}.png", label=label, sha256=f"{content:064x}")


def some(label: str, *contents: int) -> list[Sample]:
    return [sample(content, label) for content in contents]


@st.composite
def data_sets(draw: st.DrawFn) -> list[Sample]:
    """A few labels with 3 to 40 different images each, some of them with copies."""
    entries: list[Sample] = []
    first = 0
    for label in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)):
        copies = draw(st.lists(st.integers(1, 4), min_size=3, max_size=40))
        entries += [sample(first + n, label, copy) for n, count in enumerate(copies) for copy in range(count)]
        first += len(copies)
    return entries


SHARES = st.sampled_from([0.05, 0.1, 0.2, 0.33, 0.45])
SEEDS = st.integers(0, 5)


@given(data_sets(), SHARES, SHARES, SEEDS)
def test_every_image_is_in_one_split_and_copies_stay_together(
    entries: list[Sample], share_val: float, share_test: float, seed: int
) -> None:
    splits = split(entries, share_val, share_test, seed)
    assert Counter(s.path for part in splits for s in part) == Counter(s.path for s in entries)
    train, val, test = ({s.sha256 for s in part} for part in splits)
    assert not (train & val or train & test or val & test)


@given(data_sets(), SHARES, SHARES, SEEDS)
def test_every_label_has_its_share_in_every_split(
    entries: list[Sample], share_val: float, share_test: float, seed: int
) -> None:
    _, val, test = split(entries, share_val, share_test, seed)
    for label in {s.label for s in entries}:
        units = len({s.sha256 for s in entries if s.label == label})
        for part, share in ((val, share_val), (test, share_test)):
            found = len({s.sha256 for s in part if s.label == label})
            assert found >= 1
            # Rounded to whole images, but never to none, and one image is left for each of the other splits.
            assert abs(found - units * share) <= 1


@given(data_sets(), SHARES, SHARES, SEEDS, st.randoms(use_true_random=False))
def test_order_and_paths_do_not_count(
    entries: list[Sample], share_val: float, share_test: float, seed: int, chance: random.Random
) -> None:
    moved = [s.model_copy(update={"path": f"elsewhere/{n}"}) for n, s in enumerate(entries)]
    chance.shuffle(moved)
    for before, after in zip(
        split(entries, share_val, share_test, seed), split(moved, share_val, share_test, seed), strict=True
    ):
        assert [(s.sha256, s.label) for s in before] == [(s.sha256, s.label) for s in after]


@given(data_sets(), st.integers(0, 30), SEEDS)
def test_images_under_two_labels_are_in_no_split(entries: list[Sample], number: int, seed: int) -> None:
    twin = entries[number % len(entries)]
    twice = [*entries, twin.model_copy(update={"label": "another", "path": "another/twin"})]
    twice += some("another", 1000, 1001, 1002)
    assert ambiguous(twice, lambda s: s.label) == {twin.sha256}
    assume(all(len({s.sha256 for s in twice if s.label == label} - {twin.sha256}) >= 3 for label in {twin.label}))
    assert twin.sha256 not in {s.sha256 for part in split(twice, 0.2, 0.2, seed) for s in part}


def test_another_seed_is_another_split() -> None:
    entries = some("a", *range(100))
    assert split(entries, 0.1, 0.2, seed=0) == split(entries, 0.1, 0.2, seed=0)
    assert split(entries, 0.1, 0.2, seed=0)[2] != split(entries, 0.1, 0.2, seed=1)[2]


def test_shares_are_kept_and_a_share_of_zero_leaves_a_split_empty() -> None:
    entries = some("a", *range(100)) + some("b", *range(100, 150))
    assert [Counter(s.label for s in part) for part in split(entries, 0.1, 0.2, 0)] == [
        {"a": 70, "b": 35},
        {"a": 10, "b": 5},
        {"a": 20, "b": 10},
    ]
    assert [len(part) for part in split(entries, 0.0, 0.2, 0)] == [120, 0, 30]
    assert [len(part) for part in split(entries, 0.1, 0.0, 0)] == [135, 15, 0]


def test_three_images_are_enough_for_three_splits_and_two_are_not() -> None:
    assert [len(part) for part in split(some("a", 1, 2, 3), 0.45, 0.45, 0)] == [1, 1, 1]
    with pytest.raises(EdgetlError, match=r"'a' 2; every label needs 3 \(1 for train, 1 for val, 1 for test\)"):
        split([*some("a", 1, 2), sample(2, "a", copy=1), *some("b", 4, 5, 6)], 0.1, 0.1, 0)


def test_shared_images_are_refused_with_counts_and_the_first_pair() -> None:
    train, test = some("a", 1, 2, 3, 4), some("a", 3, 4, 5)
    with pytest.raises(EdgetlError) as caught:
        split_duplicates(train, (), [s.model_copy(update={"path": f"test/{s.path}"}) for s in test], "refuse")
    assert str(caught.value) == (
        "2 of 3 test images are also in train (the first: test/a/3-0.png = a/3-0.png); "
        "remove them, or set data.split_duplicates: drop to leave them out of train"
    )


def test_every_pair_of_splits_that_shares_images_is_named() -> None:
    with pytest.raises(EdgetlError, match=r"also in train .* also in val .* leave them out of train and val"):
        split_duplicates(some("a", 1, 2), some("a", 2, 3), some("a", 1, 3), "refuse")


def test_dropping_keeps_test_whole_and_val_before_train() -> None:
    train, val, notes = split_duplicates(some("a", 1, 2, 3, 4), some("a", 2, 3, 5), some("a", 3, 4, 6), "drop")
    assert train == tuple(some("a", 1))
    assert val == tuple(some("a", 2, 5))
    assert [note.rpartition(": ")[2] for note in notes] == [
        "left out of train",
        "left out of val",
        "left out of train",
    ]


@pytest.mark.parametrize("overlap", ["refuse", "drop"])
def test_splits_that_share_nothing_stay_as_they_are(overlap: str) -> None:
    train, val, test = some("a", 1, 1), some("a", 2), some("a", 3)
    assert split_duplicates(train, val, test, overlap) == (tuple(train), tuple(val), ())
