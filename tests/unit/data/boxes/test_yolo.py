from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.config import Study
from edgetl.data.boxes.box_listing import BoxListing, UnreadableError
from edgetl.data.boxes.yolo import label_file, parse_line, read_classes, yolo
from edgetl.errors import EdgetlError


def study(**data: Any) -> Study:
    return Study.model_validate(
        {
            "name": "test",
            "task": "detect",
            "data": {"format": "yolo", "root": ".", "train": "images/train", "names": "x.names", **data},
            "groups": {"vehicles": ("car", "bus")},
            "backbone": {"name": "edgetl/nano"},
            "deployments": ("combined",),
        }
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path, "x.names", "car\nbus\n")
    return tmp_path


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def listing(root: Path, **data: Any) -> BoxListing:
    return yolo(study(**data).data, root)


def faults(found: BoxListing) -> list[tuple[str, str, str]]:
    return [(fault.where, fault.kind, fault.done) for fault in found.faults]


def test_labels_lie_beside_the_images_in_folders_of_their_own(root: Path) -> None:
    put(root, "images/train/a.jpg")
    put(root, "images/train/deep/b.PNG")
    put(root, "labels/train/a.txt", "0 0.5 0.5 0.5 0.25\n\n1 .1 .1 .2 .2  \r\n")
    put(root, "labels/train/deep/b.txt", "")
    found = listing(root)
    assert found.labels == ("car", "bus") and not found.faults
    first, second = found.parts["train"]
    assert (first.path, second.path) == ("images/train/a.jpg", "images/train/deep/b.PNG")
    assert first.relative and first.size is None
    assert [mark.label for mark in first.marks] == ["car", "bus"]
    assert first.marks[0].corners == (0.25, 0.375, 0.75, 0.625)
    assert first.marks[1].where == "labels/train/a.txt line 3"
    assert second.marks == ()  # an empty file: background by intention


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/data/images/train/a.jpg", "/data/labels/train/a.txt"),
        ("/images/x/images/a.b.jpeg", "/images/x/labels/a.b.txt"),
        ("/data/train/a.jpg", "/data/train/a.txt"),
        ("/data/images.jpg", "/data/images.txt"),
        ("/my-images/a.jpg", "/my-images/a.txt"),
    ],
)
def test_the_last_folder_called_images_becomes_labels(image: str, labels: str) -> None:
    assert label_file(Path(image)) == Path(labels)


def test_labels_are_found_where_the_root_itself_is_called_images(tmp_path: Path) -> None:
    put(tmp_path, "images/x.names", "car\nbus")
    put(tmp_path, "images/train/a.jpg")
    put(tmp_path, "labels/train/a.txt", "1 0.5 0.5 1 1")
    (image,) = listing(tmp_path / "images", train="train").parts["train"]
    assert image.path == "train/a.jpg" and image.marks[0].label == "bus"


def test_images_without_labels_are_background_and_stray_labels_are_left_out(root: Path) -> None:
    put(root, "images/train/a.jpg")
    put(root, "images/train/b.jpg")
    put(root, "labels/train/b.txt", "0 .5 .5 1 1")
    put(root, "labels/train/gone.txt", "0 .5 .5 1 1")
    put(root, "labels/train/classes.txt", "car\nbus")
    found = listing(root)
    assert faults(found) == [
        ("labels/train/gone.txt", "missing image", "left out"),
        ("labels/train/a.txt", "no annotation", "kept as background"),
    ]
    assert [len(image.marks) for image in found.parts["train"]] == [0, 1]


def test_a_list_names_its_images_and_nothing_is_said_of_others(root: Path) -> None:
    for name in "abc":
        put(root, f"images/all/{name}.jpg")
        put(root, f"labels/all/{name}.txt", "0 .5 .5 1 1")
    put(root, "train.txt", "./images/all/a.jpg\n\nimages/all/c.jpg\nimages/all/a.jpg\nimages/all/gone.jpg\n")
    found = listing(root, train="train.txt")
    assert [image.path for image in found.parts["train"]] == ["images/all/a.jpg", "images/all/c.jpg"]
    assert faults(found) == [
        ("train.txt line 4", "duplicate id", "left out"),
        ("train.txt line 5", "missing image", "left out"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; expected a path of an image on every line"),
        ("a.jpg\n/data/b.jpg\n", "line 2: '/data/b.jpg' leaves data.root"),
        ("../a.jpg\n", "line 1: '../a.jpg' leaves data.root"),
        ("a\0.jpg\n", "line 1: 'a\\x00.jpg' is no path"),
        ("../a.jpg\n" * 5, "; and 2 more faults"),
    ],
)
def test_a_list_of_other_things_is_one_clear_line(root: Path, text: str, message: str) -> None:
    put(root, "train.txt", text)
    with pytest.raises(EdgetlError) as caught:
        listing(root, train="train.txt")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_images_and_a_missing_one_are_named(root: Path) -> None:
    put(root, "images/train/readme.md")
    with pytest.raises(EdgetlError, match="images/train holds no image"):
        listing(root)
    with pytest.raises(EdgetlError, match=r"data\.train: there is no file .*trian"):
        listing(root, train="images/trian")
    with pytest.raises(EdgetlError, match=r"data\.names: there is no file .*x\.name \(did you mean x\.names\?\)"):
        listing(root, names="x.name")


def test_faulty_lines_are_reported_with_their_numbers_and_left_out(root: Path) -> None:
    put(root, "images/train/a.jpg")
    put(root, "labels/train/a.txt", "0 .5 .5 1 1\n2 .5 .5 1 1\n-1 .5 .5 1 1\n0 .5 .5 1\n0 x .5 1 1\n")
    found = listing(root)
    assert faults(found) == [
        ("labels/train/a.txt line 2", "unknown class", "left out"),
        ("labels/train/a.txt line 3", "unknown class", "left out"),
        ("labels/train/a.txt line 4", "unreadable", "left out"),
        ("labels/train/a.txt line 5", "unreadable", "left out"),
    ]
    assert len(found.parts["train"][0].marks) == 1


def test_an_image_whose_labels_cannot_be_read_is_left_out(root: Path) -> None:
    for name in "abcd":
        put(root, f"images/train/{name}.jpg")
    put(root, "labels/train/a.txt")
    (root / "labels/train/b.txt").write_bytes(b"\xff\xfe0")
    os.mkfifo(root / "labels/train/c.txt")
    with (root / "labels/train/d.txt").open("wb") as stream:
        stream.truncate(1 << 40)
    found = listing(root)
    assert [image.path for image in found.parts["train"]] == ["images/train/a.jpg"]
    assert [(fault.kind, fault.done, fault.detail.partition(":")[0]) for fault in found.faults] == [
        ("unreadable", "left out", "not UTF-8"),
        ("unreadable", "left out", "not a regular file"),
        ("unreadable", "left out", "too large"),
    ]


def test_the_points_of_an_outline_become_the_box_around_them() -> None:
    assert parse_line("3 0.1 0.2 0.5 0.1 0.3 0.9") == (3, (0.1, 0.1, 0.5, 0.9))
    assert parse_line("3 .1 .2 .5 .2 .5 .6 .1 .6") == (3, (0.1, 0.2, 0.5, 0.6))  # an oriented box


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 .5 .5 1", "4 columns, expected class, x, y, width, height"),
        ("0 .5 .5 1 1 .9", "6 columns"),
        ("0 .5 .5 1 1 .9 1 1", "8 columns"),
        ("0.5 .5 .5 1 1", "no class number"),
        ("0 nan .5 1 1", "no class number with finite numbers"),
        ("0 .5 .5 inf 1", "no class number with finite numbers"),
        ("car .5 .5 1 1", "holds more than numbers"),
        ("0,0.5,0.5,1,1", "holds more than numbers"),
    ],
)
def test_a_line_that_is_neither_box_nor_outline_is_unreadable(line: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        parse_line(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("names: [car, bus]", {0: "car", 1: "bus"}),
        ("path: .\nnames:\n  0: car\n  3: bus\n", {0: "car", 3: "bus"}),
        ("names: [1, '2']", {0: "1", 1: "2"}),
        ("nc: 1\nnames: ['traffic light']", {0: "traffic light"}),
    ],
)
def test_class_names_in_yaml_are_a_list_or_a_mapping(tmp_path: Path, text: str, expected: dict[int, str]) -> None:
    put(tmp_path, "data.yaml", text)
    assert read_classes(tmp_path / "data.yaml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no names"),
        ("- a\n", "has no names"),
        ("names: car", "has no names"),
        ("names: []", "names is empty"),
        ("names: {a: car}", "names has the key 'a', expected class numbers"),
        ("names: {-1: car}", "names has the key -1"),
        ("names: [car, yes]", "names.1 is True, expected a class name; quote it"),
        ("names: [[car]]", "names.0 is"),
        ("names: ['']", "names.0 is"),
        ('names: ["a\\nb"]', "names.0 is"),
        ("names: [car]\nkpt_shape: [17, 3]", "has kpt_shape: its labels hold key points"),
        ("names: [1", "is not valid YAML"),
        ("names: !!python/object/apply:os.system [ls]", "is not valid YAML"),
        ("names: " + "[" * 5000, "is not valid YAML"),
    ],
)
def test_a_yaml_file_without_class_names_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "data.yaml", text)
    with pytest.raises(EdgetlError) as caught:
        read_classes(tmp_path / "data.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.binary(max_size=60)
    | st.text(alphabet="0123456789.-e \n\tnaif").map(str.encode)
    | st.lists(st.lists(st.floats() | st.integers(0, 2), min_size=5, max_size=9), max_size=3).map(
        lambda rows: "\n".join(" ".join(map(str, row)) for row in rows).encode()
    )
)
def test_any_label_file_gives_boxes_or_faults(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "any-yolo"
    put(root, "x.names", "car\nbus\n")
    put(root, "images/train/a.jpg")
    put(root, "labels/train/a.txt")
    (root / "labels/train/a.txt").write_bytes(content)
    found = listing(root)
    assert len(found.parts["train"]) + sum(fault.kind == "unreadable" for fault in found.faults) >= 1
    for fault in found.faults:
        assert fault.model_dump_json().encode()


@given(st.binary(max_size=60) | st.text(alphabet="names: []{}0-1\n'\"car&*!,|").map(lambda text: text.encode()))
def test_any_class_names_are_read_or_one_clear_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for name in ("any.yaml", "any.names"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        with suppress(EdgetlError):
            assert read_classes(path)
