"""Files of class names, one on every line, such as Darknet's coco.names."""

from __future__ import annotations

from pathlib import Path

from edgetl.artifacts.files import read_bytes
from edgetl.errors import EdgetlError

_MOST_BYTES = 1 << 20


def read_names(path: Path, repeated: bool = False) -> tuple[str, ...]:
    """The class names of a file, in the order of their numbers; blank lines at the end do not count.

    Args:
        repeated: whether a name may stand for several classes, as two cranes do in Darknet's list of ImageNet's.

    Raises:
        EdgetlError: the file is missing, too large, no text, or has an empty or repeated name.
    """
    content = read_bytes(path)
    if len(content) > _MOST_BYTES:
        raise EdgetlError(f"{path} has {len(content)} bytes, expected a class name on every line")
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EdgetlError(f"{path} is not UTF-8, expected a class name on every line") from None
    names = [line.strip() for line in text.rstrip().splitlines()]
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name or not name.isprintable():
            raise EdgetlError(f"{path} line {number}: {name!r} is no class name; give one on every line")
        if name in first and not repeated:
            raise EdgetlError(f"{path} line {number}: {name!r} stands on line {first[name]} already")
        first[name] = number
    if not names:
        raise EdgetlError(f"{path} is empty, expected a class name on every line")
    return tuple(names)
