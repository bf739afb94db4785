"""The readers of annotated boxes, by the name of their format."""

from __future__ import annotations

from pathlib import Path

from edgetl.config import DataSettings
from edgetl.data.boxes.box_listing import BoxListing, BoxReader
from edgetl.data.boxes.coco import coco
from edgetl.data.boxes.voc import voc
from edgetl.data.boxes.yolo import yolo
from edgetl.errors import EdgetlError

BOX_READERS: dict[str, BoxReader] = {"coco": coco, "yolo": yolo, "voc": voc}


def read_annotations(data: DataSettings, root: Path) -> BoxListing:
    """The annotated images of a data set, read before any image is opened.

    Raises:
        EdgetlError: files are missing, cannot be read, or are not of the format.
    """
    try:
        return BOX_READERS[data.format](data, root)
    except OSError as error:
        raise EdgetlError(f"cannot read {error.filename}: {error.strerror}; make it readable") from error
