"""Pascal VOC XML: for every image a file in ``Annotations``.

Format: Everingham & Winn, The PASCAL Visual Object Classes Challenge 2012 Development Kit: corners are an object's
first and last pixels, and the left top pixel of an image is (1, 1). In pixel edges that is (xmin - 1, ymin - 1, xmax,
ymax). By this count a box from a pixel to itself would be a pixel wide; but no annotator means that, so boxes whose
first pixel is not before their last one have no area here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from edgetl.artifacts.box_index import BoxFault
from edgetl.config import DataSettings
from edgetl.data.boxes.box_listing import (
    AnnotatedImage,
    BoxListing,
    RawBox,
    UnreadableError,
    is_text,
    read_bounded,
    read_text,
    shown,
)
from edgetl.data.paths import IMAGE_SUFFIXES, files_below, images_folder, leaves, must_exist, named_parts, utf8
from edgetl.errors import EdgetlError

_MOST_BYTES = 1 << 22
_MOST_LIST_BYTES = 1 << 26
_DEEPEST = 64
_OF_ONE_CLASS = re.compile(r"\S+\s+(-1|0|1)")


def voc(data: DataSettings, root: Path) -> BoxListing:
    """The images and boxes of VOC lists: ``data.train``, and where given ``val`` and ``test``, such as
    ``ImageSets/Main/train.txt``.

    A name's image is in ``data.images``, or ``JPEGImages``, its annotation in ``Annotations``. VOC has one for images
    without objects too: an image without annotation is left out.
    """
    must_exist(root, "data.root", "folder")
    must_exist(root / "Annotations", "the annotations of format voc", "folder")
    folder = images_folder(data, root, "JPEGImages")
    images: dict[str, Path] = {}
    for path in files_below(folder):
        suffix = path.suffix.lower()
        name = path.relative_to(folder).with_suffix("").as_posix()
        # VOC names images without their extension: of several of one name, the JPEG is meant.
        if suffix in IMAGE_SUFFIXES and (name not in images or suffix == ".jpg"):
            images[name] = path
    parts: dict[str, tuple[AnnotatedImage, ...]] = {}
    labels: set[str] = set()
    faults: list[BoxFault] = []
    for split, part in named_parts(data).items():
        must_exist(root / part, f"data.{split}", "file")
        parts[split] = tuple(_described(part, root, images, labels, faults))
    return BoxListing(parts, tuple(sorted(labels)), tuple(faults))


def _described(
    part: str, root: Path, images: dict[str, Path], labels: set[str], faults: list[BoxFault]
) -> Iterator[AnnotatedImage]:
    for line, name in _names(part, root, faults):
        annotation = f"Annotations/{name}.xml"
        where = f"{part} line {line}"
        if name not in images:
            detail = f"there is no image {name!r}"
            faults.append(BoxFault(where=where, kind="missing image", detail=detail, done="left out"))
        elif not (root / annotation).exists():
            detail = f"there is no {annotation}"
            faults.append(BoxFault(where=where, kind="no annotation", detail=detail, done="left out"))
        else:
            path = utf8(images[name].relative_to(root))
            try:
                found = read_annotation(read_bounded(root / annotation, _MOST_BYTES), path, annotation, faults)
            except UnreadableError as error:
                faults.append(BoxFault(where=annotation, kind="unreadable", detail=error.reason, done="left out"))
                continue
            labels.update(mark.label for mark in found.marks)
            yield found


def _names(part: str, root: Path, faults: list[BoxFault]) -> Iterator[tuple[int, str]]:
    """The line and the name of every image that a file lists."""
    try:
        lines = read_text(root / part, _MOST_LIST_BYTES).splitlines()
    except UnreadableError as error:
        raise EdgetlError(f"{root / part}: {error.reason}; expected the name of an image on every line") from error
    names = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    wrong = [f"line {number}: {name[:40]!r} is no name" for number, name in names.items() if not is_text(name)]
    wrong += [f"line {number}: {name!r} leaves data.images" for number, name in names.items() if leaves(name)]
    if wrong or not names:
        raise EdgetlError(
            f"{root / part}: {shown(wrong) or 'it is empty'}; expected the name of an image on every line"
        )
    # VOC has such a list for each class beside the list of all: a mistake that is easily made.
    if all(_OF_ONE_CLASS.fullmatch(name) for name in names.values()):
        raise EdgetlError(
            f"{root / part} is the list of one class, with 1 and -1 behind the names; give the list of all images, "
            "such as ImageSets/Main/train.txt"
        )
    first: dict[str, int] = {}
    for number, name in names.items():
        name = PurePosixPath(name).as_posix()
        if first.setdefault(name, number) == number:
            yield number, name
        else:
            detail = f"{name!r} stands on line {first[name]} already"
            where = f"{part} line {number}"
            faults.append(BoxFault(where=where, kind="duplicate id", detail=detail, done="left out"))


def read_annotation(content: bytes, path: str, where: str, faults: list[BoxFault]) -> AnnotatedImage:
    """The image at ``path`` with the boxes of its annotation; faults of single objects are added to ``faults``.

    Raises:
        UnreadableError: it is no XML without declarations of types, or not of VOC's shape.
    """
    tree = parse_xml(content)
    if tree.tag != "annotation":
        raise UnreadableError(f"its root is {tree.tag[:40]!r}, expected annotation")
    marks = []
    for number, thing in enumerate(tree.findall("object"), 1):
        here = f"{where}: object {number}"
        try:
            label = (thing.findtext("name") or "").strip()
            if not is_text(label):
                raise UnreadableError(f"its name is {label[:40]!r}")
            left, top, right, bottom = (_number(thing, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
            # Without an area in its own numbers, it has none in ours.
            width, height = (0.0 if high <= low else high - low + 1 for low, high in ((left, right), (top, bottom)))
            ignored = (thing.findtext("difficult") or "0").strip().lower() in {"1", "true"}
            marks.append(RawBox(here, label, (left - 1, top - 1, left - 1 + width, top - 1 + height), ignored))
        except UnreadableError as error:
            faults.append(BoxFault(where=here, kind="unreadable", detail=error.reason, done="left out"))
    try:
        across, down = _number(tree, "size/width"), _number(tree, "size/height")
    except UnreadableError:
        across = down = 0.0
    # Many tools write no size, or 0 x 0: then there is nothing to hold the image to.
    size = (across, down) if across > 0 and down > 0 else None
    return AnnotatedImage(path, where, tuple(marks), size)


def _number(element: Element, path: str) -> float:
    text = element.findtext(path)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadableError(f"{path} is {(text or '')[:40]!r}, expected a number")
    return value


def parse_xml(content: bytes) -> Element:
    """The tree of an XML file. No entity is expanded and no other file is read, as expat alone would do.

    Raises:
        UnreadableError: no XML, or one with a declaration of types, or too deep.
    """
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UnreadableError(f"elements lie in each other more than {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def declaration(*_: Any) -> None:
        raise UnreadableError("it declares a document type, which may hold entities; take <!DOCTYPE ...> out")

    parser = expat.ParserCreate()
    # Without it, long texts come in pieces, one call of the handler each.
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = declaration
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: an encoding that Python lacks
        raise UnreadableError(f"not valid XML: {' '.join(str(error).split())}") from error
