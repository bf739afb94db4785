from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.artifacts.data_index import SPLITS, BrokenFile, DataIndex
from edgetl.artifacts.files import sha256_file
from edgetl.config import Study
from edgetl.data.index_images import build_index, check_broken_fraction, data_root, listing_digest
from edgetl.errors import EdgetlError

MATERIAL = Path(__file__).parents[3] / ".." / "shared" / "material"


def study(*labels: str, seed: int = 0, **data: Any) -> Study:
    labels = labels or ("bird", "cat")
    return Study.model_validate(
        {
            "name": "test",
            "data": {"format": "image-folder", "root": "data", "max_broken_fraction": 0.5, **data},
            "groups": {"first": labels[:1], "second": labels[1:]},
            "backbone": {"name": "edgetl/nano"},
            "seed": seed,
        }
    )


def paint(base: Path, folder: str, *contents: int) -> None:
    """One image for each number; the same number is the same file."""
    directory = base / "data" / folder
    directory.mkdir(parents=True, exist_ok=True)
    for content in contents:
        pixels = np.random.default_rng(content).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{content}.png")


def index_of(chosen: Study, base: Path) -> DataIndex:
    return build_index(chosen, base, base / "run")


def paths(index: DataIndex) -> Counter[str]:
    return Counter(sample.path for name in SPLITS for sample in index.split(name))


def test_a_folder_becomes_an_index_with_every_image_in_one_split(tmp_path: Path) -> None:
    paint(tmp_path, "cat", *range(20))
    paint(tmp_path, "bird", *range(100, 130))
    index = index_of(study(), tmp_path)
    assert index.labels == ("bird", "cat") and not index.generated
    assert [Counter(s.label for s in index.split(name)) for name in SPLITS] == [
        {"bird": 21, "cat": 14},
        {"bird": 3, "cat": 2},
        {"bird": 6, "cat": 4},
    ]
    assert paths(index) == Counter({p.relative_to(tmp_path / "data").as_posix(): 1 for p in tmp_path.rglob("*.png")})
    root = data_root(study(), index.generated, tmp_path, tmp_path / "run")
    assert all(sha256_file(root / s.path) == s.sha256 for name in SPLITS for s in index.split(name))
    assert DataIndex.model_validate_json(index.model_dump_json()) == index


def test_names_of_files_do_not_change_the_split(tmp_path: Path) -> None:
    for base in ("one", "two"):
        paint(tmp_path / base, "cat", *range(9))
        paint(tmp_path / base, "bird", *range(100, 109))
    for file in (tmp_path / "two" / "data" / "cat").iterdir():
        file.rename(file.with_name(f"renamed-{file.name[::-1]}.png"))
    first, second = index_of(study(), tmp_path / "one"), index_of(study(), tmp_path / "two")
    assert paths(first) != paths(second)
    assert all(first.digest(name) == second.digest(name) for name in SPLITS)
    assert index_of(study(seed=1), tmp_path / "one").digest("test") != first.digest("test")


def test_given_splits_are_kept_and_the_rest_is_split_off_train(tmp_path: Path) -> None:
    for number, label in enumerate(("bird", "cat")):
        paint(tmp_path, f"train/{label}", *range(100 * number, 100 * number + 10))
        paint(tmp_path, f"test/{label}", *range(100 * number + 50, 100 * number + 53))
        paint(tmp_path, f"val/{label}", *range(100 * number + 60, 100 * number + 62))
    index = index_of(study(train="train", val=0.2, test="test"), tmp_path)
    assert [len(index.split(name)) for name in SPLITS] == [16, 4, 6]
    assert all(sample.path.startswith("test/") for sample in index.test)
    index = index_of(study(train="train", val="val", test="test"), tmp_path)
    assert [len(index.split(name)) for name in SPLITS] == [20, 4, 6]
    index = index_of(study(train="train", val="val", test=0.1), tmp_path)
    assert [len(index.split(name)) for name in SPLITS] == [18, 4, 2]


def test_all_unknown_labels_are_named_at_once_with_the_nearest_ones(tmp_path: Path) -> None:
    for label in ("bird", "cat", "horse"):
        paint(tmp_path, label, 1, 2, 3)
    with pytest.raises(EdgetlError) as caught:
        index_of(study("brid", "cat", "hoarse", "xyz"), tmp_path)
    assert str(caught.value) == (
        "groups name 'brid' (did you mean bird?), 'hoarse' (did you mean horse?), 'xyz', which are not in the data; "
        "the data has: bird, cat, horse"
    )


def test_labels_in_no_group_are_left_out_with_a_note(tmp_path: Path) -> None:
    for number, label in enumerate(("bird", "cat", "dog", "emu")):
        paint(tmp_path, label, *range(10 * number, 10 * number + 4))
    index = index_of(study(), tmp_path)
    assert {sample.label for name in SPLITS for sample in index.split(name)} == {"bird", "cat"}
    assert index.notes == ("8 images of 2 labels in no group were left out: dog, emu",)


def test_one_image_per_class_is_refused_in_one_line(tmp_path: Path) -> None:
    paint(tmp_path, "cat", 1)
    paint(tmp_path, "bird", 2)
    with pytest.raises(EdgetlError) as caught:
        index_of(study(), tmp_path)
    assert str(caught.value) == (
        "too few images in train: 'bird' 1, 'cat' 1; every label needs 3 (1 for train, 1 for val, 1 for test); "
        "add images or take these labels out of groups"
    )


def test_a_label_without_an_image_in_the_given_test_split_is_refused(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/bird", "test/cat"):
        paint(tmp_path, folder, 1, 2, 3)
    with pytest.raises(EdgetlError, match=r"too few images in test: 'bird' 0; every label needs 1"):
        index_of(study(train="train", test="test"), tmp_path)


def test_images_in_train_and_test_are_refused_or_dropped_from_train(tmp_path: Path) -> None:
    paint(tmp_path, "train/cat", *range(10))
    paint(tmp_path, "train/bird", *range(20, 30))
    paint(tmp_path, "test/cat", 8, 9, 10)
    paint(tmp_path, "test/bird", 30, 31)
    with pytest.raises(EdgetlError, match=r"2 of 5 test images are also in train \(the first: test/cat/.*drop"):
        index_of(study(train="train", test="test"), tmp_path)
    index = index_of(study(train="train", test="test", split_duplicates="drop"), tmp_path)
    assert len(index.test) == 5 and len(index.train) + len(index.val) == 18
    assert not {s.sha256 for s in index.test} & {s.sha256 for s in (*index.train, *index.val)}
    assert index.notes[0].endswith("left out of train")


def test_images_under_two_labels_are_left_out_everywhere_with_a_note(tmp_path: Path) -> None:
    paint(tmp_path, "train/cat", *range(10), 50)
    paint(tmp_path, "train/bird", *range(20, 30), 50, 60)
    paint(tmp_path, "test/cat", 40, 60)
    paint(tmp_path, "test/bird", 41)
    index = index_of(study(train="train", test="test"), tmp_path)
    assert not {"50.png", "60.png"} & {path.rpartition("/")[2] for path in paths(index)}
    assert index.notes == (
        "4 images are copies of 2 that stand under more than one label, and were left out "
        "(the first: train/bird/50.png as 'bird' = train/cat/50.png as 'cat')",
    )


def test_a_label_that_loses_all_its_images_is_refused(tmp_path: Path) -> None:
    paint(tmp_path, "train/cat", *range(10))
    paint(tmp_path, "train/bird", *range(20, 30))
    paint(tmp_path, "test/cat", 20)
    paint(tmp_path, "test/bird", 40)
    with pytest.raises(EdgetlError, match="test has no image left of 'cat'"):
        index_of(study(train="train", test="test"), tmp_path)


def test_broken_files_are_recorded_with_reasons_and_stay_out(tmp_path: Path) -> None:
    paint(tmp_path, "cat", *range(10))
    paint(tmp_path, "bird", *range(20, 30))
    cats = tmp_path / "data" / "cat"
    whole = (cats / "0.png").read_bytes()
    (cats / "empty.png").touch()
    (cats / "cut.png").write_bytes(whole[:-20])
    (cats / "text.jpg").write_text("<html>not found</html>")
    (cats / "nowhere.png").symlink_to("gone")
    os.mkfifo(cats / "pipe.png")
    with (cats / "sparse.png").open("wb") as stream:
        stream.truncate(1 << 40)
    index = index_of(study(), tmp_path)
    assert {file.path: file.reason.partition(":")[0] for file in index.broken} == {
        "cat/cut.png": "truncated",
        "cat/empty.png": "empty file",
        "cat/nowhere.png": "cannot be read",
        "cat/pipe.png": "not a regular file",
        "cat/sparse.png": "too large",
        "cat/text.jpg": "the header is none of JPEG, PNG, BMP, GIF, TIFF, WEBP, PPM",
    }
    assert sum(paths(index).values()) == 20


def test_too_many_broken_files_are_refused_with_counts_and_reasons(tmp_path: Path) -> None:
    paint(tmp_path, "cat", *range(10))
    paint(tmp_path, "bird", *range(20, 29))
    (tmp_path / "data" / "bird" / "empty.png").touch()
    with pytest.raises(EdgetlError) as caught:
        index_of(study(max_broken_fraction=0.04), tmp_path)
    assert str(caught.value) == (
        "1 of 20 images are broken, a share of 0.05, more than data.max_broken_fraction 0.04; "
        "the first: bird/empty.png (empty file); repair or remove them, or raise data.max_broken_fraction"
    )
    assert len(index_of(study(max_broken_fraction=0.05), tmp_path).broken) == 1


def test_the_first_three_broken_files_are_named() -> None:
    broken = [BrokenFile(path=f"{n}.png", reason="empty file") for n in range(5)]
    check_broken_fraction(broken, 10, 0.5)
    check_broken_fraction([], 0, 0.0)
    check_broken_fraction(broken[:1] * 29, 100, 0.29)  # a limit that is met exactly
    with pytest.raises(EdgetlError, match=r"5 of 5 .*2\.png \(empty file\); repair"):
        check_broken_fraction(broken, 5, 0.5)


def test_the_digest_changes_with_the_files_and_the_settings_and_only_with_them(tmp_path: Path) -> None:
    paint(tmp_path, "cat", 1, 2, 3)
    paint(tmp_path, "bird", 4, 5, 6)
    digests = [listing_digest(study(), tmp_path)]
    assert listing_digest(study(), tmp_path) == digests[0]

    digests += [listing_digest(study(seed=1), tmp_path), listing_digest(study("cat", "bird"), tmp_path)]
    paint(tmp_path, "bird", 7)
    digests.append(listing_digest(study(), tmp_path))
    file = tmp_path / "data" / "bird" / "7.png"
    file.write_bytes(file.read_bytes() + b" ")
    digests.append(listing_digest(study(), tmp_path))
    os.utime(file, ns=(0, 0))
    digests.append(listing_digest(study(), tmp_path))
    file.rename(file.with_name("8.png"))
    digests.append(listing_digest(study(), tmp_path))
    assert len(set(digests)) == len(digests)


def test_generated_data_lies_in_the_run_directory(tmp_path: Path) -> None:
    chosen = Study.model_validate(
        {
            "name": "test",
            "data": {"format": "synthetic", "per_label": 4},
            "groups": {"vehicles": ("car",), "signs": ("stop",)},
            "backbone": {"name": "edgetl/nano"},
        }
    )
    run = tmp_path / "run"
    before = listing_digest(chosen, tmp_path)
    index = build_index(chosen, tmp_path, run)
    assert index.generated and data_root(chosen, True, tmp_path, run) == run
    assert all((run / path).is_file() for path in paths(index))
    assert [len(index.split(name)) for name in SPLITS] == [4, 2, 2]
    assert build_index(chosen, tmp_path, run) == index
    assert listing_digest(chosen, tmp_path) == before


@pytest.mark.material
def test_real_traffic_signs_are_indexed_without_leaks() -> None:
    base = MATERIAL / "datasets"
    if not base.is_dir():
        pytest.skip("the data sets do not lie beside the project")
    train = next(folder for folder in sorted((base / "gtsrb-subset").iterdir()) if "train" in folder.name.lower())
    labels = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
    chosen = study(*labels, root="gtsrb-subset", train=train.name, split_duplicates="drop", max_broken_fraction=0.0)
    index = build_index(chosen, base, Path("never-written"))
    assert not index.broken
    parts = [{sample.sha256 for sample in index.split(name)} for name in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts))
