"""Splits without leaks: images with the same content are one unit, and a unit is in one split only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal

from edgetl.artifacts.data_index import Sample
from edgetl.artifacts.files import sha256_bytes
from edgetl.data.stream import ImageFileT
from edgetl.errors import EdgetlError

LabelledSamples = tuple[Sample, ...]

# Which split keeps a shared image, and which one loses it: what is measured on comes before what is learnt from.
_PRECEDENCE = (("test", "train"), ("test", "val"), ("val", "train"))


def ambiguous(files: Iterable[ImageFileT], annotation: Callable[[ImageFileT], Hashable]) -> frozenset[str]:
    """The contents whose copies differ in ``annotation``, such as their label: nobody knows which one is right."""
    every: dict[str, set[Hashable]] = defaultdict(set)
    for file in files:
        every[file.sha256].add(annotation(file))
    return frozenset(content for content, found in every.items() if len(found) > 1)


def split(
    entries: Sequence[Sample], val_fraction: float, test_fraction: float, seed: int
) -> tuple[LabelledSamples, LabelledSamples, LabelledSamples]:
    """Split at random into train, val and test, with the same shares of every label.

    The unit is the content: copies of an image go together. The result depends on contents, labels, shares and
    seed alone, not on paths or order. A share of 0 leaves that split empty; any other share gives every label at
    least one unit in it. All copies of `ambiguous` images are left out.

    Raises:
        EdgetlError: labels have fewer units than there are splits.
    """
    doubtful = ambiguous(entries, lambda sample: sample.label)
    units: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in entries:
        if sample.sha256 not in doubtful:
            units[sample.label][sample.sha256].append(sample)
    requested = ["train", *(["val"] if val_fraction else []), *(["test"] if test_fraction else [])]
    refuse_few_units({sample.label: len(units[sample.label]) for sample in entries}, requested)

    splits: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    for label in sorted(units):
        # Hashed with the seed, contents come in an order that neither paths nor the other images change.
        shuffled = sorted(units[label], key=lambda content: sha256_bytes(f"{seed}:{content}".encode()))
        tests = count_of(len(shuffled), test_fraction, at_most=len(shuffled) - len(requested) + 1)
        vals = count_of(len(shuffled), val_fraction, at_most=len(shuffled) - tests - 1)
        for position, content in enumerate(shuffled):
            name = "test" if position < tests else "val" if position < tests + vals else "train"
            splits[name] += sorted(units[label][content], key=lambda sample: sample.path)
    return tuple(splits["train"]), tuple(splits["val"]), tuple(splits["test"])


def split_duplicates(
    train: Sequence[ImageFileT],
    val: Sequence[ImageFileT],
    test: Sequence[ImageFileT],
    overlap: Literal["refuse", "drop"],
) -> tuple[tuple[ImageFileT, ...], tuple[ImageFileT, ...], tuple[str, ...]]:
    """Keep images of the user's own test split out of val and train, and those of val out of train.

    Returns:
        Train and val without the shared images, and a note for each pair of splits that shared some.

    Raises:
        EdgetlError: splits share images and ``overlap`` is ``refuse``.
    """
    splits = {"train": tuple(train), "val": tuple(val), "test": tuple(test)}
    found = []
    for keeper, loser in _PRECEDENCE:
        paths = {file.sha256: file.path for file in reversed(splits[loser])}  # of copies, the first one's path
        if both := [file for file in splits[keeper] if file.sha256 in paths]:
            fault = (
                f"{len(both)} of {len(splits[keeper])} {keeper} images are also in {loser} "
                f"(the first: {both[0].path} = {paths[both[0].sha256]})"
            )
            found.append((loser, fault))
    if found and overlap == "refuse":
        faults = "; ".join(fault for _, fault in found)
        losers = " and ".join(sorted({loser for loser, _ in found}))
        raise EdgetlError(f"{faults}; remove them, or set data.split_duplicates: drop to leave them out of {losers}")
    for keeper, loser in _PRECEDENCE:
        kept = {file.sha256 for file in splits[keeper]}
        splits[loser] = tuple(file for file in splits[loser] if file.sha256 not in kept)
    return splits["train"], splits["val"], tuple(f"{fault}: left out of {loser}" for loser, fault in found)


def count_of(units: int, share: float, at_most: int) -> int:
    """The number of units that a split of this share gets: at least one, as long as the other splits get theirs."""
    return min(max(1, round(units * share)), at_most) if share else 0


def refuse_few_units(counts: Mapping[str, int], requested: Sequence[str]) -> None:
    """Raise EdgetlError for labels that have fewer units than there are splits."""
    few = [f"{label!r} {count}" for label, count in sorted(counts.items()) if count < len(requested)]
    if few:
        raise EdgetlError(
            f"too few different images: {', '.join(few)}; every label needs {len(requested)} "
            f"({', '.join(f'1 for {name}' for name in requested)}); copies count once and images under two labels "
            "not at all; add images or take these labels out of groups"
        )
