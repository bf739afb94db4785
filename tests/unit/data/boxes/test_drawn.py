from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.files import sha256_file
from edgetl.config import Study
from edgetl.data.index_boxes import box_listing_digest, build_box_index
from edgetl.data.index_images import data_root
from edgetl.errors import EdgetlError


def study(*labels: str, scenes: int = 30, seed: int = 0) -> Study:
    return Study.model_validate(
        {
            "name": "test",
            "task": "detect",
            "data": {"format": "synthetic", "scenes": scenes},
            "groups": {"vehicles": labels[:1], "signs": labels[1:]},
            "backbone": {"name": "edgetl/nano"},
            "seed": seed,
        }
    )


def test_scenes_are_drawn_in_the_run_directory_and_split(tmp_path: Path) -> None:
    chosen, run = study("car", "stop"), tmp_path / "run"
    before = box_listing_digest(chosen, tmp_path)
    index = build_box_index(chosen, tmp_path, run)
    assert index.generated and data_root(chosen, True, tmp_path, run) == run
    assert not index.faults and not index.broken and not index.notes
    images = [image for name in SPLITS for image in index.split(name)]
    assert len(images) == len({image.sha256 for image in images}) == 30
    assert all(sha256_file(run / image.path) == image.sha256 for image in images)
    assert build_box_index(chosen, tmp_path, run) == index
    assert box_listing_digest(chosen, tmp_path) == before != box_listing_digest(study("car", "stop", seed=1), tmp_path)
    other = build_box_index(study("car", "stop", seed=1), tmp_path, tmp_path / "other")
    assert not {image.sha256 for name in SPLITS for image in other.split(name)} & {image.sha256 for image in images}


def test_an_unknown_label_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"groups name 'caar' \(did you mean car\?\), which is not in"):
        build_box_index(study("caar", "stop"), tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())
