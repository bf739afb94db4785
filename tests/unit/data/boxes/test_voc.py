from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.artifacts.box_index import BoxFault
from edgetl.config import Study
from edgetl.data.boxes.box_listing import AnnotatedImage, BoxListing, UnreadableError
from edgetl.data.boxes.voc import parse_xml, read_annotation, voc
from edgetl.errors import EdgetlError

CAR = (
    "<object><name>car</name>{more}"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
SIZE = "<size><width>100</width><height>50</height><depth>3</depth></size>"


def study(**data: Any) -> Study:
    return Study.model_validate(
        {
            "name": "test",
            "task": "detect",
            "data": {"format": "voc", "root": ".", "train": "ImageSets/Main/train.txt", **data},
            "groups": {"vehicles": ("car", "bus")},
            "backbone": {"name": "edgetl/nano"},
            "deployments": ("combined",),
        }
    )


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def car(*corners: object, more: str = "") -> str:
    return CAR.format(*corners, more=more)


def annotation(*parts: str) -> str:
    return f"<annotation>{''.join(parts)}</annotation>"


def read(text: str | bytes) -> tuple[AnnotatedImage, list[BoxFault]]:
    faults: list[BoxFault] = []
    content = text if isinstance(text, bytes) else text.encode()
    return read_annotation(content, "JPEGImages/a.jpg", "Annotations/a.xml", faults), faults


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        put(tmp_path, f"JPEGImages/{name}.jpg")
        put(tmp_path, f"Annotations/{name}.xml", annotation(SIZE, car(1, 2, 30, 40)))
    put(tmp_path, "ImageSets/Main/train.txt", "a\nb\n")
    return tmp_path


def listing(root: Path, **data: Any) -> BoxListing:
    return voc(study(**data).data, root)


def faults(found: BoxListing) -> list[tuple[str, str, str]]:
    return [(fault.where, fault.kind, fault.done) for fault in found.faults]


def test_names_lead_to_images_and_annotations(root: Path) -> None:
    put(root, "JPEGImages/sub/c.png")
    put(root, "Annotations/sub/c.xml", annotation(SIZE))
    put(root, "ImageSets/Main/test.txt", "sub/c\r\n\n")
    found = listing(root, test="ImageSets/Main/test.txt")
    assert [image.path for image in found.parts["train"]] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    (third,) = found.parts["test"]
    assert third.path == "JPEGImages/sub/c.png" and third.marks == () and third.size == (100, 50)
    assert found.labels == ("car",) and not found.faults


def test_first_and_last_pixels_from_one_on_become_edges_from_zero_on() -> None:
    # All of a 100 x 50 image is 1, 1 to 100, 50.
    found, faults = read(annotation(SIZE, car(1, 1, 100, 50), car("10.5", " 20 ", 30, 40)))
    assert [mark.corners for mark in found.marks] == [(0, 0, 100, 50), (9.5, 19, 30, 40)]
    assert not faults and found.size == (100, 50)


def test_a_box_whose_first_pixel_is_not_before_its_last_has_no_area() -> None:
    found, _ = read(annotation(car(5, 5, 5, 9), car(5, 9, 9, 8)))
    assert [mark.corners[2] - mark.corners[0] for mark in found.marks] == [0, 5]
    assert [mark.corners[3] - mark.corners[1] for mark in found.marks] == [5, 0]


def test_difficult_objects_are_ignored_and_parts_of_objects_passed_over() -> None:
    part = "<part><name>wheel</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    found, _ = read(
        annotation(car(1, 2, 3, 4, more="<difficult>1</difficult>"), car(1, 2, 3, 4, more="<difficult>0</difficult>"))
    )
    assert [mark.ignored for mark in found.marks] == [True, False]
    found, _ = read(annotation(car(10, 20, 30, 40).replace("</object>", f"{part}</object>")))
    assert [(mark.label, mark.corners) for mark in found.marks] == [("car", (9, 19, 30, 40))]


@pytest.mark.parametrize("size", ["", "<size/>", SIZE.replace("100", "0"), SIZE.replace("100", "wide")])
def test_a_size_that_is_not_given_is_not_compared(size: str) -> None:
    assert read(annotation(size))[0].size is None


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (car("x", 2, 3, 4), "bndbox/xmin is 'x', expected a number"),
        (car("nan", 2, 3, 4), "bndbox/xmin is 'nan'"),
        (car(1, 2, "1e999", 4), "bndbox/xmax is '1e999'"),
        ("<object><name>car</name></object>", "bndbox/xmin is '', expected a number"),
        (car(1, 2, 3, 4).replace("<name>car</name>", ""), "its name is ''"),
        (car(1, 2, 3, 4).replace("car", "a&#10;b"), "its name is 'a\\nb'"),
    ],
)
def test_an_object_that_says_nothing_is_reported_and_left_out(thing: str, reason: str) -> None:
    found, faults = read(annotation(car(1, 2, 3, 4), thing, car(5, 6, 7, 8)))
    assert len(found.marks) == 2
    assert [(fault.where, fault.kind, fault.detail, fault.done) for fault in faults] == [
        ("Annotations/a.xml: object 2", "unreadable", faults[0].detail, "left out")
    ]
    assert reason in faults[0].detail


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "xxxx">'
    + "".join(f'<!ENTITY b{n} "{f"&b{n - 1 or str()};" * 10}">' for n in range(1, 12))
    + "]><annotation>&b11;</annotation>"
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid XML: no element found"),
        (b"<annotation>", "not valid XML"),
        (b"<html></html>", "its root is 'html', expected annotation"),
        (b"\x89PNG", "not valid XML"),
        (BOMB.encode(), "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "document type"),
        (b'<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><annotation/>', "document type"),
        (b"<annotation>&unknown;</annotation>", "not valid XML"),
        (b"<a>" * 100_000, "more than 64 deep"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "not valid XML"),
        (b'<?xml version="1.0" encoding="gbk"?><annotation>\xd6\xd0</annotation>', "not valid XML"),
    ],
)
def test_hostile_and_damaged_xml_is_unreadable(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(content)
    assert reason in caught.value.reason


def test_other_encodings_that_xml_declares_are_read() -> None:
    text = annotation(car(1, 2, 3, 4)).replace("car", "Straßenbahn")
    for encoding in ("utf-8", "utf-16", "latin-1"):
        content = f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding)
        assert read(content)[0].marks[0].label == "Straßenbahn"


def test_images_without_annotation_or_file_are_reported_and_left_out(root: Path) -> None:
    put(root, "ImageSets/Main/train.txt", "a\ngone\nbare\nbroken\nb\na\n")
    put(root, "JPEGImages/bare.jpg")
    put(root, "JPEGImages/broken.jpg")
    put(root, "Annotations/gone.xml", annotation(SIZE))
    put(root, "Annotations/broken.xml", "<annotation")
    found = listing(root)
    assert [image.path for image in found.parts["train"]] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert faults(found) == [
        ("ImageSets/Main/train.txt line 2", "missing image", "left out"),
        ("ImageSets/Main/train.txt line 3", "no annotation", "left out"),
        ("Annotations/broken.xml", "unreadable", "left out"),
        ("ImageSets/Main/train.txt line 6", "duplicate id", "left out"),
    ]


def test_a_pipe_and_a_huge_annotation_are_left_unread(root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    os.mkfifo(root / "Annotations/a.xml")
    with (root / "Annotations/b.xml").open("wb") as stream:
        stream.truncate(1 << 40)
    found = listing(root)
    assert [fault.detail.partition(":")[0] for fault in found.faults] == ["not a regular file", "too large"]


def test_of_images_that_differ_in_their_ending_the_jpeg_is_taken(root: Path) -> None:
    put(root, "JPEGImages/a.bmp")
    put(root, "JPEGImages/a.png")
    assert listing(root).parts["train"][0].path == "JPEGImages/a.jpg"
    put(root, "other/a.png")
    put(root, "other/b.JPG")
    assert [image.path for image in listing(root, images="other").parts["train"]] == ["other/a.png", "other/b.JPG"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; expected the name of an image on every line"),
        ("a  1\nb -1\n", "is the list of one class, with 1 and -1 behind the names"),
        ("../a\n", "line 1: '../a' leaves data.images"),
        ("/a\n", "line 1: '/a' leaves data.images"),
        ("a\x1b\n", "line 1: 'a\\x1b' is no name"),
    ],
)
def test_a_list_of_other_things_is_one_clear_line(root: Path, text: str, message: str) -> None:
    put(root, "ImageSets/Main/train.txt", text)
    with pytest.raises(EdgetlError) as caught:
        listing(root)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_folders_are_named(root: Path) -> None:
    with pytest.raises(
        EdgetlError, match=r"data\.images: there is no folder .*JPEGImags \(did you mean JPEGImages\?\)"
    ):
        listing(root, images="JPEGImags")
    (root / "Annotations").rename(root / "annotations")
    with pytest.raises(
        EdgetlError, match=r"the annotations of format voc: there is no folder .*did you mean annotations"
    ):
        listing(root)


@settings(max_examples=250)
@given(
    st.binary(max_size=80)
    | st.text(alphabet="<>/annotation object&;!?'\"=x1[]-", max_size=80).map(str.encode)
    | st.lists(st.tuples(*[st.floats() | st.integers() | st.text(max_size=4)] * 4), max_size=3).map(
        lambda boxes: annotation(SIZE, *(car(*box) for box in boxes)).encode("utf-8", "replace")
    )
)
def test_any_annotation_gives_boxes_or_faults(content: bytes) -> None:
    try:
        found, faults = read(content)
    except UnreadableError as error:
        assert error.reason.encode() and "\n" not in error.reason
    else:
        assert all(fault.model_dump_json().encode() for fault in faults)
        assert all(len(mark.corners) == 4 for mark in found.marks)


@given(st.recursive(st.just(""), lambda inner: st.builds("<a b='c'>{}x{}</a>".format, inner, inner), max_leaves=20))
def test_trees_are_those_of_the_standard_library(text: str) -> None:
    from xml.etree import ElementTree

    content = f"<annotation>{text}</annotation>".encode()
    assert ElementTree.tostring(parse_xml(content)) == ElementTree.tostring(ElementTree.fromstring(content))
