"""What detections of the validation images are worth: mAP@0.5 of the labels that a head answers for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.arrays import Float32Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import image_placement
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match


class ValidationImages:
    """Images, and how they lie in the network's input."""

    def __init__(self, images: Sequence[BoxedImage], preprocessing: Preprocessing) -> None:
        self.images = images
        self._places = [image_placement((image.width, image.height), preprocessing) for image in images]

    def on_images(self, found: Sequence[Float32Array]) -> list[Float32Array]:
        """Detections of every image (K x 6), from pixels of the input to those of the image."""
        moved = []
        for place, one in zip(self._places, found, strict=True):
            boxes = place.to_image(one[:, :4])
            moved.append(np.concatenate([boxes, one[:, 4:]], axis=1).astype(np.float32))
        return moved

    def map50(self, classes: Sequence[str], found: Sequence[Float32Array]) -> float:
        """mAP@0.5 of detections in pixels of the input, whose labels are positions in ``classes``."""
        return ap50(match(with_boxes_of(classes, self.images), self.on_images(found), classes))


def with_boxes_of(classes: Sequence[str], images: Sequence[BoxedImage]) -> list[BoxedImage]:
    """The images with the objects of some labels alone."""
    wanted = set(classes)
    return [
        image.model_copy(update={"boxes": tuple(box for box in image.boxes if box.label in wanted)}) for image in images
    ]
