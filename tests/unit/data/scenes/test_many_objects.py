"""Synthetic scenes with boxes: what a detection study that draws its own images relies on."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data.scenes import many_objects, one_object
from edgetl.data.scenes.many_objects import SIZE, render_boxed_scene, render_boxed_scenes
from edgetl.data.scenes.one_object import LABELS, SUPERSAMPLING, scene_seed
from edgetl.data.scenes.pen import Artist, Colour, Dice, Pen
from edgetl.errors import EdgetlError

# Nothing in a scene has these colours: its own go from 24 to 246 and are never so pure.
PURE: dict[str, Colour] = {"car": (255, 0, 255), "dog": (0, 255, 255), "stop": (0, 255, 0), "bus": (255, 255, 0)}


def plate(colour: Colour, beside: bool) -> Artist:
    """A flat object in one colour, on a shadow in another that is not part of it."""

    def draw(pen: Pen, dice: Dice) -> None:
        if beside:
            pen.unmarked().box((0, 0, 255), -1.2, 0.4, 1.2, 1.1)
        pen.box(colour, -0.9, -0.8, 0.9, 0.8)
        pen.line(colour, 0.2, (0, -0.8), (0, -1))

    return draw


@pytest.fixture
def plain_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects in pure colours, and a camera that records them as they are."""
    for label, colour in PURE.items():
        monkeypatch.setitem(one_object._ARTISTS, label, plate(colour, beside=label in ("car", "stop")))
    monkeypatch.setattr(many_objects, "photograph", lambda scene, dice: scene)
    monkeypatch.setattr(Image.Image, "reduce", lambda self, factor: self)


def test_boxes_are_tight_around_what_can_be_seen_of_each_object(plain_objects: None) -> None:
    checked: Counter[str] = Counter()
    for seed in range(80):
        scene, marks = render_boxed_scene(tuple(PURE), seed)
        pixels = np.asarray(scene)
        named = Counter(mark.label for mark in marks)
        for label, colour in PURE.items():
            rows, columns = np.nonzero((pixels == colour).all(axis=2))
            if named[label] == 0:
                assert not len(rows)
            elif named[label] == 1:
                (mark,) = (mark for mark in marks if mark.label == label)
                seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert mark.corners == tuple(edge / SUPERSAMPLING for edge in seen)
                checked[label] += 1
    assert min(checked[label] for label in PURE) > 15


def test_a_hidden_object_is_judged_by_what_is_seen(plain_objects: None, monkeypatch: pytest.MonkeyPatch) -> None:
    behind, ignored = many_objects.Pose(x=100.0, y=100.0, half=40.0), {}
    for out in (0.0, 0.2, 0.5, 1.0):  # of its width, beside the one in front
        front = many_objects.Pose(x=100.0 + 2 * 0.9 * 40 * out, y=100.0, half=40.0)
        monkeypatch.setattr(many_objects, "_placed", lambda *_, front=front: [("dog", behind), ("bus", front)])
        monkeypatch.setattr(many_objects, "occluder", lambda *_: None)
        _, marks = render_boxed_scene(tuple(PURE), 0)
        ignored[out] = {mark.label: mark.ignored for mark in marks}
    assert ignored == {
        0.0: {"bus": False},
        0.2: {"dog": True, "bus": False},
        0.5: {"dog": False, "bus": False},
        1.0: {"dog": False, "bus": False},
    }


def test_an_object_at_the_edge_is_judged_by_its_whole(plain_objects: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for out in (0.2, 0.5, 0.8):  # of the width of an object, beyond the left edge
        half = 40.0
        pose = many_objects.Pose(x=half * 0.9 * (1 - 2 * out), y=100.0, half=half)
        monkeypatch.setattr(many_objects, "_placed", lambda *_, pose=pose: [("dog", pose)])
        marks = next(m for seed in range(99) if (m := render_boxed_scene(tuple(PURE), seed)[1]))
        found[out] = [mark.ignored for mark in marks]
    assert found == {0.2: [False], 0.5: [False], 0.8: [True]}


def test_scenes_have_up_to_six_objects_of_the_labels_and_of_no_other() -> None:
    labels = ("car", "stop", "pedestrian", "roundabout")
    counts = Counter(len(render_boxed_scene(labels, seed)[1]) for seed in range(120))
    assert set(counts) <= set(range(7)) and all(counts[number] > 5 for number in range(1, 6))
    marks = [mark for seed in range(100) for mark in render_boxed_scene(labels, seed)[1]]
    often = Counter(mark.label for mark in marks)
    assert set(often) == set(labels) and max(often.values()) < 2 * min(often.values())
    for mark in marks:
        left, top, right, bottom = mark.corners
        assert 0 <= left < right <= SIZE and 0 <= top < bottom <= SIZE


def test_objects_of_several_groups_stand_in_one_scene() -> None:
    together = 0
    for seed in range(60):
        labels = {mark.label for mark in render_boxed_scene(LABELS, seed)[1]}
        together += sum(not labels.isdisjoint(group) for group in one_object.GROUPS.values()) > 1
    assert together > 30


def test_the_same_labels_and_seed_give_the_same_scene_in_another_process() -> None:
    code = (
        "import hashlib; from edgetl.data.scenes.many_objects import render_boxed_scene\n"
        "scenes = [render_boxed_scene(('car', 'stop'), seed) for seed in range(6)]\n"
        "text = repr([(scene.tobytes(), marks) for scene, marks in scenes])\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": salt}, check=True, capture_output=True, text=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_a_set_is_written_as_lossless_files_with_its_boxes(tmp_path: Path) -> None:
    labels = ("deer", "stop")
    written = list(render_boxed_scenes(tmp_path, labels, 3, seed=5))
    assert [scene.path for scene in written] == ["00000.png", "00001.png", "00002.png"]
    for number, scene in enumerate(written):
        picture, marks = render_boxed_scene(labels, scene_seed("boxes", 5, number))
        with Image.open(tmp_path / scene.path) as image:
            assert image.tobytes() == picture.tobytes() and image.size == scene.size == (SIZE, SIZE)
        assert [(m.label, m.corners, m.ignored) for m in scene.marks] == [
            (m.label, m.corners, m.ignored) for m in marks
        ]
        assert all(mark.where.startswith(f"{scene.path}: object ") for mark in scene.marks)


def test_an_unknown_label_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(EdgetlError, match=r"no synthetic scene shows 'tank'"):
        render_boxed_scene(("car", "tank"), 0)
