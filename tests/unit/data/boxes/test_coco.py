from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.config import Study
from edgetl.data.boxes.box_listing import BoxListing
from edgetl.data.boxes.coco import coco, read_coco
from edgetl.errors import EdgetlError

GOOD: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 100, "height": 50, "license": 3},
        {"id": 2, "file_name": "b.jpg"},
        {"id": "third", "file_name": "deep/c.jpg", "width": 0, "height": 0},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 3,
            "bbox": [10, 20, 30.5, 5],
            "segmentation": [[1, 2, 3]],
            "iscrowd": 0,
        },
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1], "iscrowd": 1},
        {"image_id": "third", "category_id": 3, "bbox": [1, 1, 1, 1]},
    ],
    "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "bus", "supercategory": "vehicle"}],
}


def study(**data: Any) -> Study:
    return Study.model_validate(
        {
            "name": "test",
            "task": "detect",
            "data": {"format": "coco", "root": ".", "train": "train.json", **data},
            "groups": {"vehicles": ("car", "bus")},
            "backbone": {"name": "edgetl/nano"},
            "deployments": ("combined",),
        }
    )


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"content does not count here")


def written(root: Path, content: object, name: str = "train.json") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content), encoding="utf-8")
    return root / name


def listing(root: Path, content: object = GOOD, **data: Any) -> BoxListing:
    written(root, content)
    return coco(study(**data).data, root)


def changed(**parts: Any) -> dict[str, Any]:
    return {**GOOD, **parts}


def faults(found: BoxListing) -> list[tuple[str, str, str]]:
    return [(fault.where, fault.kind, fault.done) for fault in found.faults]


def test_images_boxes_crowds_and_categories_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "deep/c.jpg")
    found = listing(tmp_path)
    first, second, third = found.parts["train"]
    assert list(found.parts) == ["train"] and found.labels == ("car", "bus") and not found.faults
    assert [image.path for image in (first, second, third)] == ["a.jpg", "b.jpg", "deep/c.jpg"]
    assert (first.size, second.size, third.size) == ((100, 50), None, None)
    assert [(mark.label, mark.corners, mark.ignored) for mark in first.marks] == [
        ("car", (10, 20, 40.5, 25), False),
        ("bus", (0, 0, 1, 1), True),
    ]
    # An image without annotations is background by intention.
    assert second.marks == () and [mark.where for mark in third.marks] == ["train.json: annotation 2"]


def test_counts_are_those_of_an_established_reader(tmp_path: Path) -> None:
    reader = pytest.importorskip("pycocotools.coco", reason="the reference is COCO's own API")
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    random = Random(0)
    images = [{"id": n, "file_name": f"{name}.jpg", "width": 90, "height": 90} for n, name in enumerate("abc", 5)]
    annotations = [
        {
            "id": n,
            "image_id": random.choice([5, 6, 7]),
            "category_id": random.choice([3, 7]),
            "bbox": [random.randint(0, 40), random.randint(0, 40), random.uniform(1, 40), random.uniform(1, 40)],
            "iscrowd": int(random.random() < 0.2),
            "area": 1.0,
        }
        for n in range(1, 80)
    ]
    found = listing(tmp_path, changed(images=images, annotations=annotations))
    reference = reader.COCO(str(tmp_path / "train.json"))
    for image, number in zip(found.parts["train"], (5, 6, 7), strict=True):
        expected = reference.loadAnns(reference.getAnnIds(imgIds=[number]))
        names = {category["id"]: category["name"] for category in reference.loadCats(reference.getCatIds())}
        assert sorted((m.label, m.ignored, *m.corners) for m in image.marks) == sorted(
            (
                names[a["category_id"]],
                bool(a["iscrowd"]),
                *a["bbox"][:2],
                a["bbox"][0] + a["bbox"][2],
                a["bbox"][1] + a["bbox"][3],
            )
            for a in expected
        )


def test_images_are_found_in_their_folder_or_by_how_their_path_ends(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.jpg", "images/val/b.jpg", "images/val/deep/c.jpg", "images/train/other/deep/c.png")
    found = listing(tmp_path, images="images", val="train.json")
    assert [image.path for image in found.parts["val"]] == [
        "images/train/a.jpg",
        "images/val/b.jpg",
        "images/val/deep/c.jpg",
    ]
    touch(tmp_path, "images/train/b.jpg")
    found = listing(tmp_path, images="images")
    assert faults(found) == [("train.json: image 2", "missing image", "left out")]
    assert "2 files end in 'b.jpg'; name their folder in file_name, or in data.images" in found.faults[0].detail
    assert listing(tmp_path, images="images/val").parts["train"][0].path == "images/val/b.jpg"


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/passwd", "gone.jpg", "x" * 300 + ".jpg"])
def test_missing_images_and_those_outside_are_reported_and_left_out(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "data", "a.jpg", "deep/c.jpg")
    touch(tmp_path, "out.jpg")
    images = [GOOD["images"][0], {"id": 2, "file_name": name}, GOOD["images"][2]]
    found = listing(tmp_path / "data", changed(images=images))
    assert faults(found) == [("train.json: image 2", "missing image", "left out")]
    assert name[:20] in found.faults[0].detail
    assert len(found.parts["train"]) == 2


def test_annotations_of_unknown_images_and_categories_are_reported_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "deep/c.jpg")
    good = GOOD["annotations"][0]
    found = listing(
        tmp_path, changed(annotations=[{**good, "image_id": 9}, {**good, "id": 2, "category_id": 9}, {**good, "id": 3}])
    )
    assert faults(found) == [
        ("train.json: annotation 1", "missing image", "left out"),
        ("train.json: annotation 2", "unknown class", "left out"),
    ]
    assert [mark.where for image in found.parts["train"] for mark in image.marks] == ["train.json: annotation 3"]


def test_an_annotation_with_an_id_that_was_used_is_reported_and_kept(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "deep/c.jpg")
    first = GOOD["annotations"][0]
    found = listing(tmp_path, changed(annotations=[first, {**first, "bbox": [1, 2, 3, 4]}]))
    assert faults(found) == [("train.json: annotation 1", "duplicate id", "kept")]
    assert len(found.parts["train"][0].marks) == 2


def test_an_image_listed_twice_counts_once_and_an_id_of_two_images_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "deep/c.jpg")
    first, second, third = GOOD["images"]
    found = listing(tmp_path, changed(images=[first, first, second, {**second, "file_name": "d.jpg"}, third]))
    assert faults(found) == [
        ("train.json: image 1", "duplicate id", "left out"),
        ("train.json: image 2", "duplicate id", "left out"),
    ]
    assert "'b.jpg', 'd.jpg'), all of them were left out" in found.faults[1].detail
    assert [image.path for image in found.parts["train"]] == ["a.jpg", "deep/c.jpg"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": {}}, "images is '{}': Input should be a valid"),
        ({"images": [{"file_name": "a.jpg"}]}, "images.0.id: Field required"),
        ({"images": [{"id": 1.5, "file_name": "a.jpg"}]}, "images.0.id"),
        ({"images": [{"id": 1, "file_name": "a\nb.jpg"}]}, "expected a name without control characters"),
        ({"images": [{"id": 1, "file_name": ""}]}, "images.0.file_name"),
        ({"images": [{"id": 2**70, "file_name": "a.jpg"}]}, "images.0.id"),
        ({"annotations": [{**GOOD["annotations"][0], "bbox": ["1", 2, 3, 4]}]}, "annotations.0.bbox.0 is '1'"),
        ({"annotations": [{**GOOD["annotations"][0], "bbox": [1, 2, 3]}]}, "annotations.0.bbox.3"),
        (
            {"annotations": [{**GOOD["annotations"][0], "bbox": [1, 2, 3, float("nan")]}]},
            "annotations.0.bbox.3 is 'nan'",
        ),
        ({"annotations": [{**GOOD["annotations"][0], "bbox": [1, 2, 3, float("inf")]}]}, "annotations.0.bbox.3"),
        ({"annotations": [{"image_id": 1, "category_id": 3}]}, "annotations.0.bbox: Field required"),
        ({"annotations": [{"image_id": 1}] * 9}, "; and 15 more faults"),
        ({"categories": [{"id": 1, "name": "\ud800"}]}, "is not in COCO's format"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 is 'a' and again 'b'"),
    ],
)
def test_a_file_of_another_shape_is_one_clear_line(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgetlError) as caught:
        listing(tmp_path, changed(**parts))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "train.json") in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"[]", "the file is '[]'"),
        (b"\xff\xfe{\x00}\x00", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b'{"images": ' + b'{"a":' * 100_000, "Invalid JSON"),
        (b'{"images": [{"id": ' + b"9" * 100_000 + b"}]}", "format"),
        (b'{"images": [], "annotations": [], "categories": []} and more', "Invalid JSON"),
    ],
)
def test_what_is_no_json_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(EdgetlError, match="not in COCO's format") as caught:
        read_coco(tmp_path / "train.json")
    assert message in str(caught.value) and len(str(caught.value)) < 1000


def test_a_huge_file_and_a_pipe_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "train.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(EdgetlError, match="too large: 1099511627776 bytes"):
        read_coco(tmp_path / "train.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(EdgetlError, match="not a regular file"):
        read_coco(tmp_path / "pipe.json")


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(path).images) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": "trian.json"}, r"data\.train: there is no file .*did you mean train\.json"),
        ({"images": "imgs"}, r"data\.images: there is no folder"),
        ({"images": "../x"}, r"data\.images '\.\./x' leaves data\.root"),
        ({"val": "../val.json"}, r"data\.val '\.\./val\.json' leaves data\.root"),
    ],
)
def test_paths_of_the_study_that_are_wrong_are_named(tmp_path: Path, data: dict[str, str], message: str) -> None:
    with pytest.raises(EdgetlError, match=message):
        listing(tmp_path, **data)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "file_name", "width", "image_id", "category_id", "bbox", "iscrowd", "name"]), inner
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200)
@given(
    st.dictionaries(st.sampled_from(["images", "annotations", "categories"]), st.lists(_VALUES, max_size=3) | _VALUES),
    st.booleans(),
)
def test_any_json_gives_images_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], alone: bool
) -> None:
    root = tmp_path_factory.getbasetemp() / "any-coco"
    touch(root, "a.jpg")
    try:
        found = listing(root, content if alone else {**GOOD, **content})
    except EdgetlError as error:
        assert len(str(error).splitlines()) == 1
        str(error).encode()
    else:
        assert all(image.path == "a.jpg" for image in found.parts["train"])


@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:0.-e nul\\u').map(str.encode))
def test_any_bytes_give_one_clear_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    with suppress(EdgetlError):
        read_coco(path)
