"""Synthetic scenes: what a study that renders its own images relies on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data.scenes.one_object import GROUPS, LABELS, render_scene, render_scenes, scene_seed
from edgetl.errors import EdgetlError


def test_twenty_labels_fall_into_three_groups_of_5_10_and_5() -> None:
    assert {group: len(labels) for group, labels in GROUPS.items()} == {
        "vehicles": 5,
        "signs": 10,
        "people-and-animals": 5,
    }
    assert len(LABELS) == len(set(LABELS)) == 20
    assert tuple(label for labels in GROUPS.values() for label in labels) == LABELS


@pytest.mark.parametrize("label", LABELS)
def test_every_label_renders_in_many_poses(label: str) -> None:
    scenes = [render_scene(label, seed) for seed in range(30)]
    assert all(scene.mode == "RGB" and scene.size == (64, 64) for scene in scenes)
    assert len({scene.tobytes() for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("size", [16, 33, 96])
def test_any_size_from_16_pixels_renders(size: int) -> None:
    for label in LABELS:
        assert render_scene(label, 1, size).size == (size, size)


def test_the_same_label_seed_and_size_give_the_same_pixels_in_another_process() -> None:
    code = (
        "import hashlib; from edgetl.data.scenes.one_object import LABELS, render_scene\n"
        "scenes = b''.join(render_scene(label, seed, 48).tobytes() for label in LABELS for seed in range(5))\n"
        "print(hashlib.sha256(scenes).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": salt}, check=True, capture_output=True, text=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_seeds_keep_streams_sets_and_images_apart() -> None:
    seeds = {
        scene_seed(stream, seed, index)
        for stream in ("study", "pretrain", "pretrain-held-out")
        for seed in range(3)
        for index in range(500)
    }
    assert len(seeds) == 3 * 3 * 500


def test_an_unknown_label_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"no synthetic scene shows 'tank'; the labels are car, truck"):
        render_scene("tank", 0)
    with pytest.raises(EdgetlError, match="tank"):
        next(render_scenes(tmp_path, ["car", "tank"], 1, seed=0))
    assert list(tmp_path.iterdir()) == []


def test_a_size_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(EdgetlError, match="scene size 15 is too small; the smallest is 16 pixels"):
        render_scene("car", 0, 15)


def test_a_set_is_written_as_lossless_files_below_one_folder_per_label(tmp_path: Path) -> None:
    written = list(render_scenes(tmp_path, ["deer", "stop"], 3, seed=5))
    assert written == [(f"{label}/{index:05d}.png", label) for label in ("deer", "stop") for index in range(3)]
    assert sorted(str(p.relative_to(tmp_path).as_posix()) for p in tmp_path.rglob("*.png")) == [w[0] for w in written]
    with Image.open(tmp_path / "stop" / "00002.png") as image:
        expected = render_scene("stop", scene_seed("study", 5, 2))
        assert image.mode == "RGB" and image.tobytes() == expected.tobytes()


def test_sets_of_different_seeds_share_no_image(tmp_path: Path) -> None:
    contents = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        contents += [(folder / path).read_bytes() for path, _ in render_scenes(folder, ["car", "cat"], 20, seed)]
    assert len(set(contents)) == len(contents)


def test_raw_pixels_alone_do_not_give_the_labels_away() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs the extra train")
    per_label, train = 60, 45
    pixels = np.stack(
        [
            np.asarray(render_scene(label, scene_seed("study", 3, index), 16), dtype=np.float32).ravel() / 255
            for label in LABELS
            for index in range(per_label)
        ]
    )
    targets = np.repeat(np.arange(len(LABELS)), per_label)
    fitting = np.tile(np.arange(per_label) < train, len(LABELS))
    model = linear_model.RidgeClassifier(alpha=30.0).fit(pixels[fitting], targets[fitting])
    assert model.score(pixels[~fitting], targets[~fitting]) < 0.35
