"""The data index of a detection study: read, hashed, cleaned, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetl.artifacts.box_index import BoxedImage, BoxFault, BoxIndex
from edgetl.artifacts.data_index import SPLITS, BrokenFile
from edgetl.artifacts.files import sha256_json
from edgetl.config import GENERATED, Study
from edgetl.data.boxes.box_listing import BoxListing
from edgetl.data.boxes.box_readers import read_annotations
from edgetl.data.boxes.box_splits import BoxedImages, labels_of, split_boxes
from edgetl.data.boxes.clean import clean
from edgetl.data.examine import examine, size_and_time
from edgetl.data.generated import synthetic_boxes
from edgetl.data.index_images import check_broken_fraction, data_root
from edgetl.data.listing import listed, refuse_unknown_labels
from edgetl.data.splits import ambiguous, split_duplicates
from edgetl.errors import EdgetlError


def build_box_index(study: Study, base_dir: Path, run: Path) -> BoxIndex:
    """The index of all usable images of the study with their objects, split without leaks, and the other ones' faults.

    Files are read and hashed, not decoded. Objects of labels in no group are background. Generated sets are made in
    the run directory first.

    Raises:
        EdgetlError: the data is not as the study says, splits share images, a label is left without objects in a
            split, or too many files are broken.
    """
    root = data_root(study, study.data.format in GENERATED, base_dir, run)
    listing = _listing(study, root, run)
    parts, broken, faults = cleaned(root, listing, study.labels)
    check_broken_fraction(broken, sum(map(len, listing.parts.values())), study.data.max_broken_fraction)
    parts, doubtful = unambiguous(parts)
    train, val, notes = split_duplicates(
        parts["train"], parts.get("val", ()), parts.get("test", ()), study.data.split_duplicates
    )
    share_val, share_test = (share if isinstance(share, float) else 0.0 for share in (study.data.val, study.data.test))
    every_fault = (*listing.faults, *faults)
    # Before splitting too: of a label that is gone altogether, the splitter could only say that it has few images.
    _refuse_lost_labels(study, {"train": train}, every_fault)
    train, split_val, split_test = split_boxes(train, share_val, share_test, study.seed)
    every = Counter(mark.label for images in listing.parts.values() for image in images for mark in image.marks)
    odd = {label: count for label, count in every.items() if label not in study.labels}
    background = f"{sum(odd.values())} boxes of {len(odd)} labels in no group are background: {listed(sorted(odd))}"
    index = BoxIndex(
        generated=listing.generated,
        labels=study.labels,
        train=_ordered(train),
        val=_ordered(split_val if share_val else val),
        test=_ordered(split_test if share_test else parts["test"]),
        broken=broken,
        faults=every_fault,
        notes=(*([background] if odd else []), *doubtful, *notes),
    )
    _refuse_lost_labels(study, {name: index.split(name) for name in SPLITS}, every_fault)
    return index


def box_listing_digest(study: Study, base_dir: Path) -> str:
    """A cheap fingerprint of the data: equal digests mean that `build_box_index` would give an equal index.

    Covers the settings that the index depends on, all annotations, and path, size and time of change of every image;
    of a generated set the settings say all.

    Raises:
        EdgetlError: the data is not as the study says.
    """
    settings = [study.data.model_dump(mode="json"), list(study.labels), study.seed]
    if study.data.format in GENERATED:
        return sha256_json(settings)
    root = data_root(study, False, base_dir, base_dir)
    listing = _listing(study, root, base_dir)
    parts: dict[str, list[list[object]]] = {}
    for name, images in listing.parts.items():
        parts[name] = []
        for image in images:
            # repr keeps every digit of a float, and tells NaN from null.
            marks = [[mark.label, *map(repr, mark.corners), mark.ignored] for mark in image.marks]
            annotated = [image.path, image.size and list(image.size), image.relative, marks]
            parts[name].append([*size_and_time(root / image.path), annotated])
    return sha256_json([settings, [fault.model_dump() for fault in listing.faults], parts])


def _listing(study: Study, root: Path, run: Path) -> BoxListing:
    listing = synthetic_boxes(study, run) if study.data.format in GENERATED else read_annotations(study.data, root)
    refuse_unknown_labels(study, listing.labels)
    return listing


def cleaned(
    root: Path, listing: BoxListing, labels: Sequence[str]
) -> tuple[dict[str, BoxedImages], tuple[BrokenFile, ...], tuple[BoxFault, ...]]:
    """The hashed images with usable boxes, the broken files, and the faults of boxes."""
    parts: dict[str, BoxedImages] = {}
    broken: list[BrokenFile] = []
    faults: list[BoxFault] = []
    known = frozenset(labels)
    for name, images in listing.parts.items():
        kept: list[BoxedImage] = []
        for image, found in zip(images, examine(root, [image.path for image in images]), strict=True):
            if isinstance(found, BrokenFile):
                broken.append(found)
                continue
            boxed, wrong = clean(image, found, known)
            faults += wrong
            kept += [boxed] if boxed is not None else []
        parts[name] = tuple(kept)
    return parts, tuple(broken), tuple(faults)


def unambiguous(parts: dict[str, BoxedImages]) -> tuple[dict[str, BoxedImages], tuple[str, ...]]:
    """The splits without images of which copies have other boxes, in whichever splits they are, and a note on them."""
    every = [image for images in parts.values() for image in images]
    doubtful = ambiguous(every, lambda image: frozenset(image.boxes))
    copies = [image for image in every if image.sha256 in doubtful]
    if not copies:
        return parts, ()
    note = (
        f"{len(copies)} images are copies of {len(doubtful)} that stand with different boxes, and were left out "
        f"(the first: {', '.join(image.path for image in copies if image.sha256 == copies[0].sha256)})"
    )
    kept = {name: tuple(i for i in images if i.sha256 not in doubtful) for name, images in parts.items()}
    return kept, (note,)


def _ordered(images: BoxedImages) -> BoxedImages:
    return tuple(sorted(images, key=lambda image: (image.sha256, image.path)))


def _refuse_lost_labels(study: Study, parts: Mapping[str, BoxedImages], faults: Sequence[BoxFault]) -> None:
    """Raise EdgetlError where a label has no object in a split: training, choosing and measuring need one each."""
    for name, images in parts.items():
        there = frozenset(label for image in images for label in labels_of(image))
        gone = [repr(label) for label in study.labels if label not in there]
        if gone:
            lost = [fault for fault in faults if fault.done == "left out"]
            first = f" ({len(lost)} faulty ones are, the first: {lost[0].where}: {lost[0].detail})" if lost else ""
            raise EdgetlError(
                f"{name} has no object left of {listed(gone)}, once crowds, difficult and faulty ones are out{first}; "
                f"add images to {name}, correct the annotations or take these labels out of groups"
            )
