"""Readers of labelled images: each lists a study's images and labels before any image is opened."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from edgetl.config import Study
from edgetl.data.generated import digits, synthetic
from edgetl.data.listing import Entries, Listing, Reader, listed
from edgetl.data.paths import IMAGE_SUFFIXES, files_below, is_file, leaves, must_exist, named_parts, utf8
from edgetl.errors import EdgetlError

_COLUMNS = ("path", "label")


def image_folder(study: Study, root: Path, _run: Path) -> Listing:
    """The images in ``root/train/LABEL/**/IMAGE``; without ``data.train``, label folders lie in ``root`` itself."""
    data = study.data
    if data.train is None and (isinstance(data.val, str) or isinstance(data.test, str)):
        raise EdgetlError(
            "data.val or data.test names a folder but data.train is missing, so that folder would be a label too; "
            "name the train folder, or make val and test fractions"
        )
    must_exist(root, "data.root", "folder")
    entries: dict[str, Entries] = {}
    notes: list[str] = []
    for name, part in named_parts(data).items():
        folder = root / part
        must_exist(folder, f"data.{name}", "folder")
        found, odd = _scan(folder, study.labels)
        entries[name] = tuple(((PurePosixPath(part) / path).as_posix(), label) for path, label in found)
        if odd:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(odd.items()))
            notes.append(f"{odd.total()} files in {name} were left out ({kinds})")
    return Listing(entries["train"], entries.get("val"), entries.get("test"), notes=tuple(notes))


def csv_files(study: Study, root: Path, _run: Path) -> Listing:
    """The images of CSV files with the columns path,label and paths relative to ``root``."""
    must_exist(root, "data.root", "folder")
    entries: dict[str, Entries] = {}
    for name, part in named_parts(study.data).items():
        must_exist(root / part, f"data.{name}", "file")
        entries[name] = read_csv(root / part, root)
    return Listing(entries["train"], entries.get("val"), entries.get("test"))


READERS: dict[str, Reader] = {"image-folder": image_folder, "csv": csv_files, "digits": digits, "synthetic": synthetic}


def read_csv(file: Path, root: Path) -> Entries:
    """The rows of a file with the columns path,label; further columns are ignored.

    Raises:
        EdgetlError: the file is no such CSV, a row is at fault, or a path names no file below ``root``.
    """
    rows = _rows(file)
    faults = []
    for line, path, label in rows:
        if not path or not label:
            faults.append(f"line {line}: {'label' if path else 'path'} is empty")
        elif leaves(path):
            faults.append(f"line {line}: path {path!r} leaves data.root")
    first_line: dict[str, int] = {}
    for line, path, _ in rows:
        first = first_line.setdefault(path, line)
        if first != line and path:
            faults.append(f"line {line}: {path!r} is listed again, first on line {first}")
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more faults" if len(faults) > 3 else "")
        raise EdgetlError(f"{file}: {shown}")
    missing = [(line, path) for line, path, _ in rows if not is_file(root / path)]
    if missing:
        line, path = missing[0]
        raise EdgetlError(
            f"{file} names {len(missing)} files that do not exist, the first on line {line}: {path}; "
            f"paths are relative to {root}"
        )
    return tuple((path, label) for _, path, label in rows)


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """Line number, normalised path and label of every row."""
    try:
        # csv needs line ends as they are: quoted fields may hold some.
        with file.open(newline="", encoding="utf-8-sig") as stream:
            table = csv.DictReader(stream)
            header = table.fieldnames or ()
            if not set(_COLUMNS) <= set(header):
                raise EdgetlError(f"{file} line 1: the columns are {listed(header)}, expected path,label")
            return [
                (table.line_num, str(PurePosixPath(row["path"])) if row["path"] else "", row["label"] or "")
                for row in table
            ]
    except UnicodeDecodeError:
        raise EdgetlError(f"{file} is not UTF-8; save it with that encoding") from None
    except (OSError, csv.Error) as error:
        raise EdgetlError(f"{file} cannot be read as CSV: {error}") from error


def _scan(folder: Path, labels: Iterable[str]) -> tuple[Entries, Counter[str]]:
    """The images below the label folders, and the number of other files of each kind."""
    found: list[tuple[str, str]] = []
    odd: Counter[str] = Counter()
    for child in sorted(folder.iterdir()):
        if child.name.startswith("."):
            continue
        if not child.is_dir():
            odd["in no label folder"] += 1
            continue
        files = list(files_below(child))
        kinds = Counter(file.suffix.lower() or "no extension" for file in files)
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        if not images and child.name in labels:
            raise EdgetlError(
                f"label {child.name!r} has no image: {child} holds 0 images among {len(files)} files; "
                "add images or take the label out of groups"
            )
        found += ((utf8(file.relative_to(folder)), child.name) for file in images)
        odd.update({kind: count for kind, count in kinds.items() if kind not in IMAGE_SUFFIXES})
    return tuple(found), odd
