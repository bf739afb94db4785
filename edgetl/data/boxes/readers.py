"""The formats of boxes."""

from __future__ import annotations

from edgetl.data.boxes.coco import coco
from edgetl.data.boxes.drawn import synthetic
from edgetl.data.boxes.listing import BoxReader
from edgetl.data.boxes.voc import voc
from edgetl.data.boxes.yolo import yolo

BOX_READERS: dict[str, BoxReader] = {"coco": coco, "yolo": yolo, "voc": voc, "synthetic": synthetic}
