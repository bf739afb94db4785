"""The data index of a study: listed, hashed, checked, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetl.artifacts.data_index import SPLITS, BrokenFile, DataIndex, Sample
from edgetl.artifacts.files import sha256_json
from edgetl.config import GENERATED, Study
from edgetl.data.examine import examine, size_and_time
from edgetl.data.image_readers import READERS
from edgetl.data.listing import Entries, Listing, listed, refuse_unknown_labels
from edgetl.data.splits import LabelledSamples, ambiguous, split, split_duplicates
from edgetl.errors import EdgetlError


def data_root(study: Study, index_generated: bool, base_dir: Path, run: Path) -> Path:
    """The folder that the paths of an index are relative to.

    Args:
        study: the study.
        index_generated: `DataIndex.generated`.
        base_dir: the folder of the study file.
        run: the run directory.
    """
    return run if index_generated else base_dir / (study.data.root or ".")


def build_index(study: Study, base_dir: Path, run: Path) -> DataIndex:
    """The index of every usable image of the study by content, split without leaks.

    Files are read and hashed, not decoded; what only decoding tells is found by `stream`. Generated sets are made in
    the run directory first.

    Raises:
        EdgetlError: the data is not as the study says, splits share images, a label is left without images in a
            split, or too many files are broken.
    """
    root = data_root(study, study.data.format in GENERATED, base_dir, run)
    listing = _listing(study, root, run)
    parts, broken = _examine(root, listing.parts())
    check_broken_fraction(broken, sum(map(len, listing.parts().values())), study.data.max_broken_fraction)
    parts, doubtful = _unambiguous(parts)
    train, val, notes = split_duplicates(
        parts["train"], parts.get("val", ()), parts.get("test", ()), study.data.split_duplicates
    )
    share_val, share_test = (share if isinstance(share, float) else 0.0 for share in (study.data.val, study.data.test))
    train, split_val, split_test = split(train, share_val, share_test, study.seed)
    position = {label: number for number, label in enumerate(study.labels)}

    def ordered(samples: LabelledSamples) -> LabelledSamples:
        return tuple(sorted(samples, key=lambda s: (position[s.label], s.sha256, s.path)))

    index = DataIndex(
        generated=listing.generated,
        labels=study.labels,
        train=ordered(train),
        val=ordered(split_val if share_val else val),
        test=ordered(split_test if share_test else parts["test"]),
        broken=broken,
        notes=(*listing.notes, *doubtful, *notes),
    )
    for name in SPLITS:
        there = {sample.label for sample in index.split(name)}
        gone = [repr(label) for label in index.labels if label not in there]
        if gone:
            raise EdgetlError(
                f"{name} has no image left of {', '.join(gone)}, once broken files, images under two labels and "
                f"images shared between splits are out; add images to {name} or take these labels out of groups"
            )
    return index


def check_broken_fraction(broken: Sequence[BrokenFile], total: int, limit: float) -> None:
    """Refuse data of which too large a share is broken.

    Args:
        broken: the files that gave no pixels.
        total: how many files there are, broken ones among them.
        limit: ``data.max_broken_fraction``.

    Raises:
        EdgetlError: the share of broken files is above the limit.
    """
    if not broken or len(broken) / total <= limit:
        return
    first = ", ".join(f"{file.path} ({file.reason})" for file in broken[:3])
    raise EdgetlError(
        f"{len(broken)} of {total} images are broken, a share of {len(broken) / total:.3g}, more than "
        f"data.max_broken_fraction {limit:g}; the first: {first}; "
        "repair or remove them, or raise data.max_broken_fraction"
    )


def listing_digest(study: Study, base_dir: Path) -> str:
    """A cheap fingerprint of the data: equal digests mean that `build_index` would give an equal index.

    Covers the settings that the index depends on, and path, label, size and time of change of every file; of a
    generated set the settings say all.

    Raises:
        EdgetlError: the data is not as the study says.
    """
    settings = [study.data.model_dump(mode="json"), list(study.labels), study.seed]
    if study.data.format in GENERATED:
        return sha256_json(settings)
    root = data_root(study, False, base_dir, base_dir)
    listing = _listing(study, root, base_dir)
    parts = {
        name: [[path, label, *size_and_time(root / path)] for path, label in entries]
        for name, entries in listing.parts().items()
    }
    return sha256_json([settings, listing.notes, parts])


def _listing(study: Study, root: Path, run: Path) -> Listing:
    """The images of the study's labels; images of labels in no group are left out, with a note."""
    try:
        listing = READERS[study.data.format](study, root, run)
    except OSError as error:
        raise EdgetlError(f"cannot read {error.filename}: {error.strerror}; make it readable") from error
    refuse_unknown_labels(study, {label for _, label in listing.train})
    labels = frozenset(study.labels)
    kept = {name: tuple(e for e in entries if e[1] in labels) for name, entries in listing.parts().items()}
    _refuse_small_labels(study, kept)
    odd = Counter(label for entries in listing.parts().values() for _, label in entries if label not in labels)
    note = f"{odd.total()} images of {len(odd)} labels in no group were left out: {listed(sorted(odd))}"
    notes = (*listing.notes, note) if odd else listing.notes
    return Listing(kept["train"], kept.get("val"), kept.get("test"), listing.generated, notes)


def _refuse_small_labels(study: Study, parts: Mapping[str, Entries]) -> None:
    """Raise EdgetlError where a label has no image in a split: training, choosing and measuring need one each."""
    split_off = [name for name in ("val", "test") if name not in parts]
    for name, entries in parts.items():
        counts = Counter(label for _, label in entries)
        targets = ["train", *split_off] if name == "train" else [name]
        few = [f"{label!r} {counts[label]}" for label in study.labels if counts[label] < len(targets)]
        if few:
            raise EdgetlError(
                f"too few images in {name}: {listed(few)}; every label needs {len(targets)} "
                f"({', '.join(f'1 for {target}' for target in targets)}); add images or take these labels out of groups"
            )


def _examine(root: Path, parts: dict[str, Entries]) -> tuple[dict[str, LabelledSamples], tuple[BrokenFile, ...]]:
    """The hashed samples of every split, and the files whose bytes show that they are broken."""
    samples: dict[str, LabelledSamples] = {}
    broken: list[BrokenFile] = []
    for name, entries in parts.items():
        examined = examine(root, [path for path, _ in entries])
        broken += (found for found in examined if isinstance(found, BrokenFile))
        samples[name] = tuple(
            Sample(path=path, label=label, sha256=found.sha256)
            for (path, label), found in zip(entries, examined, strict=True)
            if not isinstance(found, BrokenFile)
        )
    return samples, tuple(broken)


def _unambiguous(parts: dict[str, LabelledSamples]) -> tuple[dict[str, LabelledSamples], tuple[str, ...]]:
    """The splits without images that stand under two labels, in whichever splits they are, and a note on them."""
    every = [sample for samples in parts.values() for sample in samples]
    doubtful = ambiguous(every, lambda sample: sample.label)
    copies = [sample for sample in every if sample.sha256 in doubtful]
    if not copies:
        return parts, ()
    first = [sample for sample in copies if sample.sha256 == copies[0].sha256]
    other = next(sample for sample in first if sample.label != first[0].label)
    note = (
        f"{len(copies)} images are copies of {len(doubtful)} that stand under more than one label, and were left out "
        f"(the first: {first[0].path} as {first[0].label!r} = {other.path} as {other.label!r})"
    )
    kept = {name: tuple(s for s in samples if s.sha256 not in doubtful) for name, samples in parts.items()}
    return kept, (note,)
