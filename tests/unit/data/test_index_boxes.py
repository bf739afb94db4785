from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from edgetl.artifacts.box_index import BoxedImage, BoxIndex
from edgetl.artifacts.data_index import SPLITS
from edgetl.artifacts.files import sha256_file
from edgetl.config import Study
from edgetl.data.index_boxes import box_listing_digest, build_box_index
from edgetl.errors import EdgetlError

DATASETS = Path(__file__).parents[3] / ".." / "shared" / "material" / "datasets"
CAR, BUS = "0 0.5 0.5 0.5 0.5\n", "1 0.25 0.25 0.25 0.25\n"


def study(*labels: str, seed: int = 0, **data: Any) -> Study:
    labels = labels or ("car", "bus")
    return Study.model_validate(
        {
            "name": "test",
            "task": "detect",
            "data": {"format": "yolo", "root": "data", "train": "images", "names": "x.names", **data},
            "groups": {"first": labels[:1], "second": labels[1:]} if labels[1:] else {"first": labels},
            "backbone": {"name": "edgetl/nano"},
            "deployments": ("combined",),
            "seed": seed,
        }
    )


def paint(base: Path, part: str, *contents: int, labels: str | None = CAR) -> None:
    """One 40 x 20 image for each number, the same number the same file, with these labels."""
    images, texts = base / "data/images" / part, base / "data/labels" / part
    for folder in (images, texts):
        folder.mkdir(parents=True, exist_ok=True)
    for content in contents:
        pixels = np.random.default_rng(content).integers(0, 256, (20, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"{content}.png")
        if labels is not None:
            (texts / f"{content}.txt").write_text(labels)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Twenty images with cars and ten with a bus too, in one folder."""
    paint(tmp_path, ".", *range(20))
    paint(tmp_path, ".", *range(20, 30), labels=CAR + BUS)
    (tmp_path / "data/x.names").write_text("car\nbus\ntram\n")
    return tmp_path


def index_of(chosen: Study, base: Path) -> BoxIndex:
    return build_box_index(chosen, base, base / "run")


def every(index: BoxIndex) -> list[BoxedImage]:
    return [image for name in SPLITS for image in index.split(name)]


def counts(images: tuple[BoxedImage, ...]) -> Counter[str]:
    return Counter(box.label for image in images for box in image.boxes)


def kinds(index: BoxIndex) -> Counter[tuple[str, str]]:
    return Counter((fault.kind, fault.done) for fault in index.faults)


def test_a_folder_becomes_an_index_with_boxes_in_pixels(base: Path) -> None:
    index = index_of(study(), base)
    assert index.labels == ("car", "bus") and not index.generated and not index.faults and not index.notes
    assert [len(index.split(name)) for name in SPLITS] == [21, 3, 6]
    assert [counts(index.split(name)) for name in SPLITS] == [
        {"car": 21, "bus": 7},
        {"car": 3, "bus": 1},
        {"car": 6, "bus": 2},
    ]
    for image in every(index):
        assert (image.width, image.height) == (40, 20)
        assert sha256_file(base / "data" / image.path) == image.sha256
        box = image.boxes[0]
        assert (box.label, box.x1, box.y1, box.x2, box.y2, box.ignored) == ("car", 10, 5, 30, 15, False)
    assert BoxIndex.model_validate_json(index.model_dump_json()) == index
    assert index_of(study(), base) == index
    assert index_of(study(seed=1), base).digest("test") != index.digest("test")


def test_given_splits_are_kept_and_the_rest_is_split_off_train(tmp_path: Path) -> None:
    paint(tmp_path, "train", *range(10), labels=CAR + BUS)
    paint(tmp_path, "test", *range(20, 23), labels=CAR + BUS)
    (tmp_path / "data/x.names").write_text("car\nbus\n")
    index = index_of(study(train="images/train", val=0.2, test="images/test"), tmp_path)
    assert [len(index.split(name)) for name in SPLITS] == [8, 2, 3]
    assert all(image.path.startswith("images/test/") for image in index.test)


def test_objects_of_labels_in_no_group_are_background_and_counted(base: Path) -> None:
    paint(base, ".", 40, labels="2 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.2 0.2\n")
    index = index_of(study(), base)
    assert index.notes == ("2 boxes of 1 labels in no group are background: tram",)
    (image,) = [image for image in every(index) if image.path == "images/40.png"]
    assert image.boxes == ()


def test_unknown_labels_are_named_with_the_nearest_one(base: Path) -> None:
    with pytest.raises(EdgetlError, match=r"groups name 'caar' \(did you mean car\?\), which is not in the data"):
        index_of(study("caar", "bus"), base)


def test_a_label_without_objects_is_named_with_what_was_left_out(base: Path) -> None:
    with pytest.raises(
        EdgetlError, match=r"^train has no object left of 'tram', once crowds, difficult and faulty ones"
    ):
        index_of(study("car", "tram"), base)
    paint(base, ".", 50, labels="2 0.5 0.5 0 0.5\n")
    with pytest.raises(EdgetlError, match=r"1 faulty ones are, the first: labels/50\.txt line 1: 20, 5 to 20, 15"):
        index_of(study("car", "tram"), base)


def test_a_label_on_fewer_images_than_splits_is_an_error(base: Path) -> None:
    paint(base, ".", 50, 51, labels="2 0.5 0.5 0.5 0.5\n")
    with pytest.raises(EdgetlError, match="'tram' 2; every label needs 3"):
        index_of(study("car", "tram"), base)


def test_a_given_split_without_a_label_is_an_error(base: Path) -> None:
    paint(base, "elsewhere", 60, 61)
    (base / "data/images/elsewhere").rename(base / "data/other")
    for text in (base / "data/labels/elsewhere").iterdir():
        text.rename(base / "data/other" / text.name)
    with pytest.raises(EdgetlError, match="test has no object left of 'bus'"):
        index_of(study(test="other"), base)


def test_images_in_train_and_test_are_refused_or_dropped_from_train(tmp_path: Path) -> None:
    paint(tmp_path, "train", *range(10), labels=CAR + BUS)
    paint(tmp_path, "test", 8, 9, 10, labels=CAR + BUS)
    (tmp_path / "data/x.names").write_text("car\nbus\n")
    parts = {"train": "images/train", "test": "images/test"}
    with pytest.raises(EdgetlError, match=r"2 of 3 test images are also in train \(the first: images/test/.*drop"):
        index_of(study(**parts), tmp_path)
    index = index_of(study(**parts, split_duplicates="drop"), tmp_path)
    assert len(index.test) == 3 and len(index.train) + len(index.val) == 8
    assert index.notes[0].endswith("left out of train")


def test_copies_with_the_same_boxes_stay_together_and_with_others_are_left_out(base: Path) -> None:
    for number, name in ((3, "copy-a"), (3, "copy-b"), (25, "copy-c")):
        (base / f"data/images/{name}.png").write_bytes((base / f"data/images/{number}.png").read_bytes())
        (base / f"data/labels/{name}.txt").write_text(CAR)
    for seed in range(4):
        index = index_of(study(seed=seed), base)
        homes = {name for name in SPLITS for image in index.split(name) if image.path.startswith("images/copy-")}
        assert len(homes) == 1
        assert len(every(index)) == 31
        assert index.notes == (
            "2 images are copies of 1 that stand with different boxes, and were left out "
            "(the first: images/25.png, images/copy-c.png)",
        )


def test_the_size_of_a_photograph_is_that_of_the_upright_image(base: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (64, 32)).save(base / "data/images/turned.jpg", exif=exif)
    (base / "data/labels/turned.txt").write_text(CAR)
    (image,) = [image for image in every(index_of(study(), base)) if image.path == "images/turned.jpg"]
    assert (image.width, image.height) == (32, 64)
    assert (image.boxes[0].x2, image.boxes[0].y2) == (24, 48)


def test_broken_images_are_recorded_up_to_the_limit(base: Path) -> None:
    (base / "data/images/0.png").write_bytes(b"")
    with pytest.raises(EdgetlError, match=r"1 of 30 images are broken.*images/0\.png \(empty file\)"):
        index_of(study(), base)
    index = index_of(study(max_broken_fraction=0.1), base)
    assert [(file.path, file.reason) for file in index.broken] == [("images/0.png", "empty file")]
    assert len(every(index)) == 29


def test_faults_of_files_and_of_boxes_are_in_the_index(base: Path) -> None:
    paint(base, ".", 70, labels="0 0.9 0.5 0.8 0.5\n0 2 2 .1 .1\n0 .5 .5 0 1\n9 .5 .5 1 1\n" + CAR + CAR)
    paint(base, ".", 71, labels=None)
    (base / "data/labels/gone.txt").write_text(CAR)
    assert kinds(index_of(study(), base)) == {
        ("outside the image", "clipped"): 1,
        ("outside the image", "left out"): 1,
        ("no area", "left out"): 1,
        ("unknown class", "left out"): 1,
        ("duplicate id", "left out"): 1,
        ("no annotation", "kept as background"): 1,
        ("missing image", "left out"): 1,
    }


def test_the_digest_changes_only_with_images_annotations_and_settings(base: Path) -> None:
    digests = [box_listing_digest(study(), base)]
    assert box_listing_digest(study(), base) == digests[0]
    digests += [box_listing_digest(study(seed=1), base), box_listing_digest(study("bus", "car"), base)]
    label = base / "data/labels/0.txt"
    before = label.stat()
    label.write_text(CAR.replace("0.5 0.5\n", "0.5 0.6\n"))
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    digests.append(box_listing_digest(study(), base))
    paint(base, ".", 80)
    digests.append(box_listing_digest(study(), base))
    os.utime(base / "data/images/80.png", ns=(0, 0))
    digests.append(box_listing_digest(study(), base))
    (base / "data/labels/80.txt").unlink()
    digests.append(box_listing_digest(study(), base))
    assert len(set(digests)) == len(digests)


def datasets() -> Path:
    if not DATASETS.is_dir():
        pytest.skip("the data sets do not lie beside the project")
    return DATASETS


@pytest.mark.material
def test_blood_cells_are_all_there_but_for_two_boxes_without_area() -> None:
    parts = {name: f"ImageSets/Main/{name}.txt" for name in SPLITS}
    chosen = study("RBC", "WBC", "Platelets", format="voc", root="bccd", names=None, **parts)
    index = build_box_index(chosen, datasets(), Path("never-written"))
    assert [len(index.split(name)) for name in SPLITS] == [205, 87, 72]
    assert counts(tuple(every(index))) == {"RBC": 4153, "WBC": 372, "Platelets": 361}
    assert sorted((fault.where, fault.kind, fault.done) for fault in index.faults) == [
        ("Annotations/BloodImage_00338.xml: object 13", "no area", "left out"),
        ("Annotations/BloodImage_00343.xml: object 4", "no area", "left out"),
    ]


def street(**data: Any) -> Study:
    return study("person", "car", "bus", "truck", root="coco128", val=0.15, test=0.15, **data)


@pytest.mark.material
def test_coco_and_yolo_of_the_same_photographs_give_the_same_boxes() -> None:
    base = datasets()
    coco = build_box_index(
        street(format="coco", train="annotations/instances_train2017.json", names=None), base, Path("never-written")
    )
    yolo = build_box_index(
        street(format="yolo", train="images/train2017", names="config.yaml"), base, Path("never-written")
    )
    by_content = {image.sha256: image for image in every(coco)}
    assert by_content.keys() == {image.sha256 for image in every(yolo)} and len(by_content) == 128
    compared = 0
    for image in every(yolo):
        # Whoever wrote the text files left crowds out.
        others = sorted((b.label, b.x1, b.y1, b.x2, b.y2) for b in by_content[image.sha256].boxes if not b.ignored)
        own = sorted((b.label, b.x1, b.y1, b.x2, b.y2) for b in image.boxes)
        assert [label for label, *_ in own] == [label for label, *_ in others]
        if own:
            np.testing.assert_allclose([edges for _, *edges in own], [edges for _, *edges in others], atol=0.02)
        compared += len(own)
    assert compared > 300


@pytest.mark.material
def test_the_defects_of_real_labels_are_reported() -> None:
    chosen = street(format="yolo", train="images/train2017", names="config.yaml")
    index = build_box_index(chosen, datasets(), Path("never-written"))
    assert sorted((fault.where.rpartition("/")[2], fault.kind, fault.done) for fault in index.faults) == [
        ("000000000250.txt", "no annotation", "kept as background"),
        ("000000000508.txt", "no annotation", "kept as background"),
        ("000000000656.txt", "missing image", "left out"),
        ("000000000659.txt", "missing image", "left out"),
    ]


@pytest.mark.material
def test_counts_of_real_annotations_are_those_of_an_established_reader() -> None:
    reader = pytest.importorskip("pycocotools.coco", reason="the reference is COCO's own API")
    file = datasets() / "coco128/annotations/instances_train2017.json"
    chosen = street(format="coco", train="annotations/instances_train2017.json", names=None)
    index = build_box_index(chosen, datasets(), Path("never-written"))
    reference = reader.COCO(str(file))
    found = Counter((box.label, box.ignored) for image in every(index) for box in image.boxes)
    for label in index.labels:
        kind = reference.getCatIds(catNms=[label])
        for crowd in (False, True):
            assert found[label, crowd] == len(reference.getAnnIds(catIds=kind, iscrowd=crowd))
    assert len(json.loads(file.read_text())["images"]) == len(every(index))
