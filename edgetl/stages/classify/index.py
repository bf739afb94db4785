"""The stage `index`: which image file belongs to which split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetl.artifacts.data_index import SPLITS, DataIndex
from edgetl.artifacts.files import read_json, write_json
from edgetl.data.index_images import build_index, data_root, listing_digest
from edgetl.stages.stage import Context


def inputs(context: Context) -> dict[str, Any]:
    return {"listing": listing_digest(context.study, context.base_dir)}


def work(context: Context) -> list[Path]:
    index = build_index(context.study, context.base_dir, context.run.path)
    write_json(context.run.index, index)
    counts = ", ".join(f"{len(index.split(split))} {split}" for split in SPLITS)
    context.reporter.message(f"index: {counts} images of {len(index.labels)} labels")
    for note in index.notes:
        context.reporter.message(f"index: {note}")
    for broken in index.broken:
        context.reporter.message(f"index: left out {broken.path}: {broken.reason}")
    # Images that edgetl made belong to the run directory: where one is lost or changed, they are all made anew.
    made = [s.path for split in SPLITS for s in index.split(split)] if index.generated else []
    return [context.run.index, *(context.run.path / path for path in made)]


def read_index(context: Context) -> tuple[DataIndex, Path]:
    """The index and the folder that its paths are relative to."""
    index = read_json(context.run.index, DataIndex)
    return index, data_root(context.study, index.generated, context.base_dir, context.run.path)
