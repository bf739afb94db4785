"""Which annotations a path means, and what is said of one that means none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data.labelled_boxes import is_annotated, labelled_boxes
from edgetl.errors import EdgetlError

LABELS = ("bus", "car")
WIDTH, HEIGHT = 40, 20
CORNERS = (4, 5, 24, 15)


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def coco(root: Path, label: str = "car", images: str = "val/a.png", file: str = "val.json") -> Path:
    picture(root / images)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [4, 5, 20, 10]}],
        "categories": [{"id": 7, "name": label}, {"id": 9, "name": "a label without boxes"}],
    }
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root / file


def coco_beside_its_folder(root: Path) -> Path:
    return coco(root, images="val2017/a.png", file="annotations/instances_val.json")


def yolo(root: Path, text: str = "val: images/val\nnames: [bus, car]\n", labels: str = "1 0.35 0.5 0.5 0.5\n") -> Path:
    picture(root / "images" / "val" / "a.png")
    picture(root / "images" / "train" / "b.png", seed=1)
    for name in ("val/a.txt", "train/b.txt"):
        (root / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / name).write_text(labels)
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def yolo_elsewhere(root: Path) -> Path:
    yolo(root / "sets" / "street", text="")
    (root / "data.yaml").write_text("path: sets/street\nval: images/val\nnames: {0: bus, 1: car}\n")
    return root / "data.yaml"


def voc(root: Path) -> Path:
    picture(root / "JPEGImages" / "a.png")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>car</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>24</xmax><ymax>15</ymax>"
        "</bndbox></object></annotation>"
    )
    names = root / "ImageSets" / "Main" / "val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("a\n")
    return names


def folder_of(made: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def folder(root: Path) -> Path:
        made(root)
        return root

    return folder


@pytest.mark.parametrize(
    "made",
    [coco, coco_beside_its_folder, yolo, folder_of(yolo), yolo_elsewhere, voc, folder_of(voc)],
    ids=["coco", "coco beside its folder", "yolo", "yolo's folder", "yolo elsewhere", "voc's list", "voc's folder"],
)
def test_every_format_is_known_by_its_path_and_gives_the_same_box(made: Callable[[Path], Path], tmp_path: Path) -> None:
    source = made(tmp_path)
    assert is_annotated(source)
    found = labelled_boxes(source, LABELS)
    (image,) = found.images
    (box,) = image.boxes
    assert (image.width, image.height, box.label) == (WIDTH, HEIGHT, "car")
    assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx(CORNERS)
    assert (found.root / image.path).is_file()
    assert not found.faults and not found.broken and not found.notes


def test_a_path_may_be_relative_to_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_beside_its_folder(tmp_path)
    monkeypatch.chdir(tmp_path / "annotations")
    assert labelled_boxes(Path("instances_val.json"), LABELS).images


def test_folders_by_label_are_no_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "car" / "a.png")
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "names.txt").write_text("car\n")
    assert not is_annotated(tmp_path)
    assert not is_annotated(tmp_path / "names.txt")
    with pytest.raises(
        EdgetlError, match="nothing with boxes that edgetl knows, and a detector is evaluated on boxes; give"
    ):
        labelled_boxes(tmp_path, LABELS)


def test_labels_that_the_graph_does_not_know_are_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=r"boxes of 'cars' \(did you mean car\?\), which the graph does not know"):
        labelled_boxes(coco(tmp_path, label="cars"), LABELS)


def test_images_that_are_not_there_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    source = coco(tmp_path)
    (tmp_path / "val" / "a.png").unlink()
    with pytest.raises(
        EdgetlError, match=r"no usable image; the first of 1 faults: val.json: image 1: there is no file"
    ):
        labelled_boxes(source, LABELS)


def test_an_image_that_is_none_is_told_and_the_others_are_used(tmp_path: Path) -> None:
    source = yolo(tmp_path)
    (tmp_path / "images" / "val" / "b.png").write_bytes(b"no image")
    found = labelled_boxes(source, LABELS)
    assert [one.path for one in found.broken] == ["images/val/b.png"]
    assert len(found.images) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [bus, car]\n", "has path '.' and val None, expected under val one folder"),
        ("val: [a, b]\nnames: [bus, car]\n", r"val \['a', 'b'\], expected under val one folder"),
        ("val: images/valid\nnames: [bus, car]\n", "val of .*: there is no folder .*valid .*did you mean val"),
        ("val: ../images/val\nnames: [bus, car]\n", "val '../images/val', which leaves"),
        ("path: gone\nval: images/val\nnames: [bus, car]\n", "path of .*: there is no folder"),
        ("val: images/val\n", "has no names"),
        ("[", "is not valid YAML"),
    ],
)
def test_a_yaml_file_that_does_not_say_what_to_judge_by_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match=message):
        labelled_boxes(yolo(tmp_path, text), LABELS)


def test_a_folder_of_yolo_has_one_file_that_names_its_classes(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "other.yaml").write_text("")
    with pytest.raises(EdgetlError, match=r"has 2 \.yaml files \(data.yaml, other.yaml\), expected one"):
        labelled_boxes(tmp_path, LABELS)


def test_a_folder_of_voc_has_a_list_of_validation_images(tmp_path: Path) -> None:
    voc(tmp_path).rename(tmp_path / "ImageSets" / "Main" / "test.txt")
    with pytest.raises(EdgetlError, match=r"validation images: there is no file .*val\.txt"):
        labelled_boxes(tmp_path, LABELS)


def test_a_path_that_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="does not exist; give annotations with boxes"):
        labelled_boxes(tmp_path / "val.json", LABELS)
