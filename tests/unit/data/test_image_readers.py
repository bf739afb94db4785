from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.config import Study
from edgetl.data.image_readers import READERS, read_csv
from edgetl.data.listing import Listing
from edgetl.data.scenes.one_object import LABELS
from edgetl.errors import EdgetlError, MissingExtraError


def study(labels: tuple[str, ...] = ("bird", "cat"), seed: int = 0, **data: Any) -> Study:
    settings = {"format": "image-folder", "root": "data", **data}
    return Study.model_validate(
        {
            "name": "test",
            "data": {key: value for key, value in settings.items() if value is not None},
            "groups": {"first": labels[:1], "second": labels[1:]},
            "backbone": {"name": "edgetl/nano"},
            "seed": seed,
        }
    )


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"content does not count here")


def listing(chosen: Study, root: Path) -> Listing:
    return READERS[chosen.data.format](chosen, root, root / "run")


def csv_file(root: Path, text: str, encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.csv").write_bytes(text.encode(encoding))
    return root / "train.csv"


def test_label_folders_are_read_at_any_depth_in_a_fixed_order(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/b.JPG", "train/cat/a/z.png", "train/cat/a.webp", "train/bird/x.ppm", "test/bird/y.gif")
    found = listing(study(train="train", test="test"), tmp_path)
    assert found.train == (
        ("train/bird/x.ppm", "bird"),
        ("train/cat/a.webp", "cat"),
        ("train/cat/b.JPG", "cat"),
        ("train/cat/a/z.png", "cat"),
    )
    assert found.val is None
    assert found.test == (("test/bird/y.gif", "bird"),)
    assert not found.generated and found.notes == ()


def test_without_a_train_folder_the_labels_lie_in_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "bird/b.png")
    assert listing(study(), tmp_path).train == (("bird/b.png", "bird"), ("cat/a.png", "cat"))
    with pytest.raises(EdgetlError, match=r"data\.train is missing"):
        listing(study(val="cat"), tmp_path)


def test_hidden_files_are_ignored_and_odd_ones_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "cat/.b.png", "cat/.cache/c.png", ".git/d.png", "bird/a.jpeg")
    touch(tmp_path, "bird/notes.txt", "bird/more.TXT", "bird/README", "loose.png")
    found = listing(study(), tmp_path)
    assert found.train == (("bird/a.jpeg", "bird"), ("cat/a.png", "cat"))
    assert found.notes == ("4 files in train were left out (.txt 2, in no label folder 1, no extension 1)",)


def test_links_are_followed_and_a_circle_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/more/a.png", "data/bird/b.png")
    (tmp_path / "data" / "cat").mkdir()
    (tmp_path / "data" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "more" / "circle").symlink_to(tmp_path / "elsewhere")
    assert listing(study(), tmp_path / "data").train == (
        ("bird/b.png", "bird"),
        ("cat/linked/more/a.png", "cat"),
    )


def test_a_label_folder_without_images_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "bird/notes.txt")
    with pytest.raises(EdgetlError, match=r"label 'bird' has no image: .* 0 images among 1 files"):
        listing(study(), tmp_path)


@pytest.mark.parametrize(
    ("root", "train", "message"),
    [
        ("dta", "train", r"data\.root: there is no folder .*dta \(did you mean data\?\); .* has the folders: data"),
        ("data", "trian", r"data\.train: there is no folder .*trian \(did you mean train\?\); .*: train"),
        ("data", "../data/train", r"data\.train '\.\./data/train' leaves data\.root"),
    ],
)
def test_a_missing_folder_is_refused_with_the_nearest_one(tmp_path: Path, root: str, train: str, message: str) -> None:
    touch(tmp_path / "data", "train/cat/a.png", "train/bird/a.png")
    with pytest.raises(EdgetlError, match=message):
        listing(study(train=train), tmp_path / root)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/cat/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(EdgetlError, match="not UTF-8"):
        listing(study(), tmp_path)


def test_csv_rows_become_entries_whatever_else_the_file_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b, c.png", "ü.png")
    csv_file(tmp_path, 'label,note,path\r\ncat,,./a/1.png\r\nbird,x,"b, c.png"\r\n\r\nbird,,ü.png\r\n', "utf-8-sig")
    found = listing(study(format="csv", train="train.csv"), tmp_path)
    assert found.train == (("a/1.png", "cat"), ("b, c.png", "bird"), ("ü.png", "bird"))
    assert found.val is None and found.test is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the columns are none, expected path,label"),
        ("file,label\na.png,cat\n", "line 1: the columns are file, label, expected path,label"),
        ("path,label\na.png,cat\nb.png,\n", "line 3: label is empty"),
        ("path,label\na.png\n", "line 2: label is empty"),
        ("path,label\n,cat\n", "line 2: path is empty"),
        ("path,label\n../a.png,cat\n", r"line 2: path '\.\./a\.png' leaves data\.root"),
        ("path,label\nx/../../a.png,cat\n", "leaves data.root"),
        ("path,label\n/etc/passwd,cat\n", "line 2: path '/etc/passwd' leaves data.root"),
        ("path,label\na.png,cat\n./a.png,bird\n", "line 3: 'a.png' is listed again, first on line 2"),
        ("path,label\na.png,cat\nb.png,cat\nc.png,cat\n", "2 files that do not exist, the first on line 3: b.png"),
        (f"path,label\n{'a' * 5000},cat\n", "1 files that do not exist"),
        (f"path,label\n{'a' * 200_000},cat\n", "cannot be read as CSV"),
        ("path,label\n" + ",\n" * 5, "; and 2 more faults"),
    ],
)
def test_faults_of_a_csv_file_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.png")
    csv_file(tmp_path, text)
    with pytest.raises(EdgetlError, match=message) as caught:
        listing(study(format="csv", train="train.csv"), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_csv_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    csv_file(tmp_path, "path,label\nü.png,cat\n", "latin-1")
    with pytest.raises(EdgetlError, match="not UTF-8"):
        listing(study(format="csv", train="train.csv"), tmp_path)


def test_a_missing_csv_file_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    csv_file(tmp_path, "path,label\n")
    with pytest.raises(EdgetlError, match=r"there is no file .*did you mean train\.csv\?"):
        listing(study(format="csv", train="trian.csv"), tmp_path)


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("path,label\n\r\"'/.\0\ufeffü"), max_size=60))
def test_no_csv_text_raises_anything_but_a_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.getbasetemp() / "hostile"
    with suppress(EdgetlError):
        read_csv(csv_file(root, "path,label\n" + text), root)


def test_digits_are_written_as_grey_images_and_made_anew_where_one_was_lost(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="digits come with scikit-learn")
    chosen = study(("3", "8"), format="digits", root=None, per_label=5)
    found = READERS["digits"](chosen, tmp_path, tmp_path)
    assert found.generated and found.val is None and found.test is None
    assert [label for _, label in found.train].count("3") == 5
    assert len(found.train) == 50 and all(path.startswith("data/digits/") for path, _ in found.train)

    digits = datasets.load_digits()
    first = Image.open(tmp_path / next(path for path, label in found.train if label == "3"))
    assert first.mode == "L" and first.size == (32, 32)
    original = digits.images[list(digits.target).index(3)]
    np.testing.assert_array_equal(np.asarray(first)[::4, ::4], np.rint(original * 255 / 16))

    lost = tmp_path / found.train[0][0]
    content = lost.read_bytes()
    lost.unlink()
    assert READERS["digits"](chosen, tmp_path, tmp_path) == found
    assert lost.read_bytes() == content


def test_digits_without_scikit_learn_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"edgetl\[train\]"):
        READERS["digits"](study(("3", "8"), format="digits", root=None), tmp_path, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_set_is_made_anew_where_it_was_damaged_or_asked_for_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("sklearn.datasets", reason="digits come with scikit-learn")
    for per_label in (4, 3):
        chosen = study(("3", "8"), format="digits", root=None, per_label=per_label)
        found = READERS["digits"](chosen, tmp_path, tmp_path)
        assert len(found.train) == len(list(tmp_path.rglob("*.png"))) == 10 * per_label
        (tmp_path / "data" / "digits" / "3" / "000.png").write_bytes(b"damaged")
    READERS["digits"](chosen, tmp_path, tmp_path)
    assert (tmp_path / "data" / "digits" / "3" / "000.png").read_bytes() != b"damaged"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["digits"]


@pytest.mark.parametrize("first", [True, False])
def test_files_of_others_in_the_folder_of_a_set_stay(tmp_path: Path, first: bool) -> None:
    pytest.importorskip("sklearn.datasets", reason="digits come with scikit-learn")
    chosen = study(("3", "8"), format="digits", root=None, per_label=3)
    if not first:
        READERS["digits"](chosen, tmp_path, tmp_path)
    touch(tmp_path / "data" / "digits", "3/mine.png")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EdgetlError, match=r"3/mine\.png was not made by edgetl, .*; move it away"):
        READERS["digits"](chosen, tmp_path, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    touch(tmp_path, "data")
    with pytest.raises(EdgetlError, match=r"cannot write .*digits"):
        READERS["digits"](study(("3", "8"), format="digits", root=None), tmp_path, tmp_path)


def test_synthetic_scenes_are_drawn_for_the_labels_of_the_study(tmp_path: Path) -> None:
    labels = LABELS[:2]
    chosen = study(labels, format="synthetic", root=None, per_label=3)
    found = READERS["synthetic"](chosen, tmp_path, tmp_path)
    assert found.generated
    assert [label for _, label in found.train] == [labels[0]] * 3 + [labels[1]] * 3
    drawn = [(tmp_path / path).read_bytes() for path, _ in found.train]
    assert READERS["synthetic"](chosen, tmp_path, tmp_path) == found
    assert [(tmp_path / path).read_bytes() for path, _ in found.train] == drawn

    other = READERS["synthetic"](study(labels, 1, format="synthetic", root=None, per_label=3), tmp_path, tmp_path)
    assert not {(tmp_path / path).read_bytes() for path, _ in other.train} & set(drawn)


def test_an_unknown_synthetic_label_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    chosen = study(("motorcycel", "bus"), format="synthetic", root=None)
    with pytest.raises(EdgetlError, match=r"groups name 'motorcycel' \(did you mean motorcycle\?\), which is not in"):
        READERS["synthetic"](chosen, tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())
