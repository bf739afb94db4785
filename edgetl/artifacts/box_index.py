"""Images with boxes: the data index of a detection study."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.data_index import SplitImages, SplitName
from edgetl.artifacts.files import Artifact, sha256_json


class Box(Artifact):
    """An object: its label, and left, top, right and bottom in pixels of the upright image.

    Coordinates are pixel edges: a box over the whole image is (0, 0, width, height). ``ignored`` marks a crowd or an
    object that its annotator calls difficult: detecting it is neither right nor wrong.
    """

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    ignored: bool = False


class BoxedImage(Artifact):
    """One image and its objects, which may be none. ``path`` is relative to the data root (or run directory)."""

    path: str
    sha256: str
    width: int
    height: int
    boxes: tuple[Box, ...]


class BoxFault(Artifact):
    """A fault of an annotation, and what was done about it. ``where`` names the file, and the line or id."""

    where: str
    kind: Literal[
        "outside the image",
        "no area",
        "unknown class",
        "duplicate id",
        "missing image",
        "no annotation",
        "image size differs",
        "unreadable",
    ]
    detail: str
    done: Literal["clipped", "left out", "kept", "kept as background"]


class BoxIndex(SplitImages[BoxedImage]):
    """The data index of a detection study, with the faults of its annotations."""

    faults: tuple[BoxFault, ...] = ()

    def digest(self, *names: SplitName) -> str:
        """Digest over content and boxes of the named splits, in order; paths do not count."""
        return sha256_json([[image.model_dump(exclude={"path"}) for image in self.split(name)] for name in names])
