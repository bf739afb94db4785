"""Road scenes that edgetl draws in the run directory, several objects in each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgetl.config import Study
from edgetl.data.boxes.listing import BoxListing
from edgetl.data.generated import whole_folder
from edgetl.data.listing import refuse_unknown_labels

_FOLDER = "data/road-scenes"


def synthetic(study: Study, run: Path) -> BoxListing:
    """``data.scenes`` scenes with objects of the study's labels, anew whenever they are listed."""
    # Imported here: only this format draws, and the drawing is a large module.
    from edgetl.data.synthetic import LABELS
    from edgetl.data.synthetic_boxes import render_boxed_scenes

    refuse_unknown_labels(study, LABELS)
    with whole_folder(run / _FOLDER) as partial:
        scenes = tuple(render_boxed_scenes(partial, study.labels, study.data.scenes, study.seed))
    train = tuple(replace(scene, path=f"{_FOLDER}/{scene.path}") for scene in scenes)
    return BoxListing({"train": train}, LABELS, generated=True)
