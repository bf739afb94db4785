"""YOLO text files: beside every image one, with a line for every object.

Format: a line is a class number, and centre, width and height in shares of the image's sides (Darknet,
``data.c``, ``read_boxes``). A line of a class number and three or more points is an outline (docs.ultralytics.com,
"Instance segmentation datasets" and "Oriented bounding boxes"): its box is the one around the points. Labels lie where
the images do, with the last folder ``images`` of the path replaced by ``labels``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from edgetl.artifacts.box_index import BoxFault
from edgetl.config import DataSettings
from edgetl.data.boxes.box_listing import (
    AnnotatedImage,
    BoxListing,
    Corners,
    RawBox,
    UnreadableError,
    is_text,
    read_text,
    shown,
)
from edgetl.data.class_names import read_names
from edgetl.data.paths import IMAGE_SUFFIXES, files_below, is_file, leaves, must_exist, named_parts, utf8
from edgetl.errors import EdgetlError

_MOST_BYTES = 1 << 24
_MOST_LIST_BYTES = 1 << 28
_MOST_NAMES_BYTES = 1 << 20
YAML_SUFFIXES = frozenset({".yaml", ".yml"})
_CLASSES_FILE = "classes.txt"
"""The list of class names that annotation tools put beside the label files."""


def yolo(data: DataSettings, root: Path) -> BoxListing:
    """The images and boxes of folders of images, or text files that list them: ``data.train``, and where given ``val``
    and ``test``.

    An image without a label file is background, and reported; one with an empty file is background by intention.
    """
    must_exist(root, "data.root", "folder")
    assert data.names is not None
    must_exist(root / data.names, "data.names", "file")
    names = read_classes(root / data.names)
    parts: dict[str, tuple[AnnotatedImage, ...]] = {}
    faults: list[BoxFault] = []
    for split, part in named_parts(data).items():
        if (root / part).is_dir():
            paths = (path for path in files_below(root / part) if path.suffix.lower() in IMAGE_SUFFIXES)
            images = tuple(utf8(path.relative_to(root)) for path in paths)
            if not images:
                raise EdgetlError(f"{root / part} holds no image; expected {', '.join(sorted(IMAGE_SUFFIXES))}")
            labelled = {label_file(root / image) for image in images}
            stray = {path for folder in {path.parent for path in labelled} for path in folder.glob("*.txt")} - labelled
            for path in sorted(stray, key=lambda path: (path.parent, path)):
                if path.name == _CLASSES_FILE:
                    continue
                detail, where = "there is no image of this name", _shown_path(path, root)
                faults.append(BoxFault(where=where, kind="missing image", detail=detail, done="left out"))
        else:
            must_exist(root / part, f"data.{split}", "file")
            images = tuple(_listed_images(root, part, faults))
        parts[split] = tuple(_described(images, root, names, faults))
    return BoxListing(parts, tuple(dict.fromkeys(names.values())), tuple(faults))


def read_classes(file: Path) -> dict[int, str]:
    """The class names by number, from a file with a name on every line, or from a YAML file with the key ``names``.

    Raises:
        EdgetlError: the file is missing or not of that kind.
    """
    if file.suffix.lower() not in YAML_SUFFIXES:
        return dict(enumerate(read_names(file)))
    content = read_yaml(file)
    if not isinstance(content.get("names"), dict | list):
        raise EdgetlError(f"{file} has no names, expected a list or a mapping of class names under that key")
    if "kpt_shape" in content:
        raise EdgetlError(
            f"{file} has kpt_shape: its labels hold key points, which look like outlines; write labels of class, "
            "x, y, width and height alone, and take kpt_shape out"
        )
    names = content["names"]
    found: dict[int, str] = {}
    for number, name in names.items() if isinstance(names, dict) else enumerate(names):
        # YAML reads yes, no, on and off as booleans, which are integers in Python.
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise EdgetlError(f"{file}: names has the key {number!r}, expected class numbers from 0 on")
        if not isinstance(name, str | int) or isinstance(name, bool) or not is_text(str(name)):
            raise EdgetlError(f"{file}: names.{number} is {name!r}, expected a class name; quote it")
        found[number] = str(name)
    if not found:
        raise EdgetlError(f"{file}: names is empty, expected class names")
    return found


def read_yaml(file: Path) -> dict[Any, Any]:
    """The content of a file such as data.yaml; empty where it is no mapping.

    Raises:
        EdgetlError: it is missing or no YAML.
    """
    try:
        content = yaml.safe_load(read_text(file, _MOST_NAMES_BYTES))
    except UnreadableError as error:
        raise EdgetlError(f"{file}: {error.reason}") from error
    except Exception as error:  # a value that its tag does not fit lets PyYAML raise whatever Python does
        raise EdgetlError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _listed_images(root: Path, part: str, faults: list[BoxFault]) -> Iterator[str]:
    """The images that a file lists and that exist."""
    try:
        lines = read_text(root / part, _MOST_LIST_BYTES).splitlines()
    except UnreadableError as error:
        raise EdgetlError(f"{root / part}: {error.reason}; expected a path of an image on every line") from error
    paths = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    wrong = [f"line {number}: {path!r} leaves data.root" for number, path in paths.items() if leaves(path)]
    wrong += [f"line {number}: {path[:40]!r} is no path" for number, path in paths.items() if not is_text(path)]
    if wrong or not paths:
        raise EdgetlError(
            f"{root / part}: {shown(wrong) or 'it is empty'}; expected a path of an image on every line, relative to "
            "data.root"
        )
    first: dict[str, int] = {}
    for number, path in paths.items():
        where, path = f"{part} line {number}", PurePosixPath(path).as_posix()
        if first.setdefault(path, number) != number:
            detail = f"{path!r} stands on line {first[path]} already"
            faults.append(BoxFault(where=where, kind="duplicate id", detail=detail, done="left out"))
        elif not is_file(root / path):
            detail = f"there is no file {path!r} below {root}"
            faults.append(BoxFault(where=where, kind="missing image", detail=detail, done="left out"))
        else:
            yield path


def label_file(image: Path) -> Path:
    """The path of an image's label file."""
    parts = list(image.parts)
    # From the end: a root may be called images too.
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _shown_path(path: Path, root: Path) -> str:
    """A path for messages: relative to the root where it is below it. (Labels of a root that is called images lie
    beside it.)
    """
    return utf8(path.relative_to(root) if path.is_relative_to(root) else path)


def _described(
    images: Iterable[str], root: Path, names: dict[int, str], faults: list[BoxFault]
) -> Iterator[AnnotatedImage]:
    for image in images:
        file = label_file(root / image)
        where = _shown_path(file, root)
        if not file.exists():
            detail = f"{image} has no label file"
            faults.append(BoxFault(where=where, kind="no annotation", detail=detail, done="kept as background"))
            yield AnnotatedImage(image, where, (), relative=True)
            continue
        try:
            text = read_text(file, _MOST_BYTES)
        except UnreadableError as error:
            faults.append(BoxFault(where=where, kind="unreadable", detail=error.reason, done="left out"))
            continue
        yield AnnotatedImage(image, where, tuple(_marks(text, where, names, faults)), relative=True)


def _marks(text: str, file: str, names: dict[int, str], faults: list[BoxFault]) -> Iterator[RawBox]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file} line {number}"
        try:
            kind, corners = parse_line(line)
        except UnreadableError as error:
            faults.append(BoxFault(where=where, kind="unreadable", detail=error.reason, done="left out"))
            continue
        if kind not in names:
            detail = f"class {kind} is not among the {len(names)} names"
            faults.append(BoxFault(where=where, kind="unknown class", detail=detail, done="left out"))
            continue
        yield RawBox(where, names[kind], corners)


def parse_line(line: str) -> tuple[int, Corners]:
    """The class number of a line, and left, top, right and bottom in shares of the image's sides.

    Raises:
        UnreadableError: it is neither a box nor an outline.
    """
    columns = line.split()
    try:
        values = [float(column) for column in columns]
    except ValueError:
        raise UnreadableError(f"{line.strip()[:60]!r} holds more than numbers") from None
    if not all(map(math.isfinite, values)) or not values[0].is_integer():
        raise UnreadableError(f"{line.strip()[:60]!r} is no class number with finite numbers behind it")
    if len(values) == 5:
        kind, x, y, width, height = values
        return int(kind), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) >= 7 and len(values) % 2:
        xs, ys = values[1::2], values[2::2]
        return int(values[0]), (min(xs), min(ys), max(xs), max(ys))
    raise UnreadableError(
        f"{len(values)} columns, expected class, x, y, width, height (or a class and the points of an outline)"
    )
