"""Splits of images with several labels each, with about the same share of every label in each split.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, On the stratification of multi-label data): the label
with the fewest images left is dealt out first, each image to the split that wants it most. Labels that miss a split
after that get an image from one that can spare it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.files import sha256_bytes
from edgetl.data.splits import count_of, refuse_few_units

BoxedImages = tuple[BoxedImage, ...]

_ALL = ""
"""The entry among the labels' counts that counts all images, with and without labels."""


def labels_of(image: BoxedImage) -> frozenset[str]:
    """The labels of an image's objects that are not ignored."""
    return frozenset(box.label for box in image.boxes if not box.ignored)


def split_boxes(
    images: Sequence[BoxedImage], val_fraction: float, test_fraction: float, seed: int
) -> tuple[BoxedImages, BoxedImages, BoxedImages]:
    """Split at random into train, val and test, with about the same shares of every label and of all images.

    Copies of an image go together. Only contents, boxes, shares and seed count. A share of 0 leaves a split empty.

    Raises:
        EdgetlError: labels are on fewer different images than there are splits.
    """
    units: dict[str, list[BoxedImage]] = defaultdict(list)
    for image in sorted(images, key=lambda image: image.path):
        units[image.sha256].append(image)
    # Hashed with the seed, contents come in an order that neither paths nor the other images change.
    order = sorted(units, key=lambda content: sha256_bytes(f"{seed}:{content}".encode()))
    carried = {content: labels_of(units[content][0]) for content in order}
    counts = Counter(label for labels in carried.values() for label in labels)
    requested = ["train", *(["val"] if val_fraction else []), *(["test"] if test_fraction else [])]
    refuse_few_units(counts, requested)
    wants = _wants(counts | {_ALL: len(units)}, {"val": val_fraction, "test": test_fraction}, requested)
    dealt: dict[str, str] = {}
    for label, content in _rarest_first(carried):
        # Where two want it equally, the one that is short of images altogether.
        dealt[content] = max(wants, key=lambda name: (wants[name][label], wants[name][_ALL]))
        wants[dealt[content]].subtract([*carried[content], _ALL])
    _repair(dealt, carried, requested)
    parts: dict[str, list[BoxedImage]] = {"train": [], "val": [], "test": []}
    for content, name in dealt.items():
        parts[name] += units[content]
    return tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"])


def _wants(counts: Mapping[str, int], shares: Mapping[str, float], requested: Sequence[str]) -> dict[str, Counter[str]]:
    """How many images of every label each split should get."""
    wants: dict[str, Counter[str]] = {name: Counter() for name in requested}
    for label, count in counts.items():
        # At most as many as leave one image for each other split.
        test = count_of(count, shares["test"], at_most=count - len(requested) + 1)
        val = count_of(count, shares["val"], at_most=count - test - 1)
        for name, images in {"train": count - val - test, "val": val, "test": test}.items():
            if name in wants:
                wants[name][label] = images
    return wants


def _rarest_first(carried: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """Every content once, under the label that fewest of those left carry; at the end those without a label."""
    # Dicts as ordered sets: the order of sets of strings differs from process to process.
    waiting: dict[str, dict[str, None]] = defaultdict(dict)
    for content, labels in carried.items():
        for label in labels:
            waiting[label][content] = None
    while waiting:
        label = min(waiting, key=lambda label: (len(waiting[label]), label))
        for content in tuple(waiting.pop(label)):
            yield label, content
            for other in carried[content] & waiting.keys():
                del waiting[other][content]
    yield from ((_ALL, content) for content, labels in carried.items() if not labels)


def _repair(dealt: dict[str, str], carried: Mapping[str, frozenset[str]], requested: Sequence[str]) -> None:
    """Give every split an image of every label, as long as no label is taken from another split for that."""
    held = {name: Counter[str]() for name in requested}
    for content, name in dealt.items():
        held[name].update(carried[content])
    labels = sorted({label for own in carried.values() for label in own})
    missing = [(label, name) for label in labels for name in requested if not held[name][label]]
    for label, name in missing:
        # Its old split must keep an image of every label that the image carries.
        spare = [c for c, own in carried.items() if label in own and all(held[dealt[c]][other] > 1 for other in own)]
        if spare and not held[name][label]:
            held[dealt[spare[0]]].subtract(carried[spare[0]])
            held[name].update(carried[spare[0]])
            dealt[spare[0]] = name
