"""The stage `index`: which image belongs to which split, and the boxes on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgetl.artifacts.box_index import BoxFault, BoxIndex
from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.files import read_json, write_json
from edgetl.data.index_boxes import box_listing_digest, build_box_index
from edgetl.data.index_images import data_root
from edgetl.stages.stage import Context

_SHOWN = 3  # of each kind: enough to see what is wrong, and a line that can be read; the index lists all


def inputs(context: Context) -> dict[str, Any]:
    return {"listing": box_listing_digest(context.study, context.base_dir)}


def work(context: Context) -> list[Path]:
    index = build_box_index(context.study, context.base_dir, context.run.path)
    write_json(context.run.index, index)
    splits = {split: index.split(split) for split in SPLITS}
    counts = ", ".join(
        f"{len(images)} {split} ({sum(len(image.boxes) for image in images)} boxes)" for split, images in splits.items()
    )
    context.reporter.message(f"index: {counts} images of {len(index.labels)} labels")
    for line in fault_lines(index.faults, f", see {context.run.index}"):
        context.reporter.message(f"index: {line}")
    for note in index.notes:
        context.reporter.message(f"index: {note}")
    for broken in index.broken:
        context.reporter.message(f"index: left out {broken.path}: {broken.reason}")
    # Images that edgetl made belong to the run directory: where one is lost or changed, they are all made anew.
    made = [image.path for images in splits.values() for image in images] if index.generated else []
    return [context.run.index, *(context.run.path / path for path in made)]


def fault_lines(faults: Sequence[BoxFault], all_of_them: str = "") -> Iterator[str]:
    """A line for each kind of fault, with the first ones; ``all_of_them`` tells where the others are listed."""
    for (kind, done), count in Counter((fault.kind, fault.done) for fault in faults).items():
        first = [fault for fault in faults if (fault.kind, fault.done) == (kind, done)][:_SHOWN]
        shown = "; ".join(f"{fault.where}: {fault.detail}" for fault in first)
        more = f"; and {count - _SHOWN} more{all_of_them}" if count > _SHOWN else ""
        yield f"{kind}, {done}: {count} ({shown}{more})"


def read_index(context: Context) -> tuple[BoxIndex, Path]:
    """The index and the folder that its paths are relative to."""
    index = read_json(context.run.index, BoxIndex)
    return index, data_root(context.study, index.generated, context.base_dir, context.run.path)
