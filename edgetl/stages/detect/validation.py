"""Detections of validation images: their mAP@0.5 while heads are trained, and the file that they are kept in."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.box_index import BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.detector_bundle import VALUES
from edgetl.artifacts.files import read_bytes
from edgetl.data.geometry import image_placement
from edgetl.measure.average_precision import ap50
from edgetl.measure.matching import match


class ValidationImages:
    """Labelled images, and the place of each in the network's input."""

    def __init__(self, images: Sequence[BoxedImage], preprocessing: Preprocessing) -> None:
        self.images = images
        self._places = [image_placement((image.width, image.height), preprocessing) for image in images]

    def on_images(self, detections: Sequence[Float32Array]) -> list[Float32Array]:
        """Detections of every image (K x 6), moved from pixels of the input to those of the image."""
        # Back to float32, the type of all detections: geometry is done in float64.
        return [
            np.concatenate([place.to_image(one[:, :4]), one[:, 4:]], axis=1).astype(np.float32)
            for place, one in zip(self._places, detections, strict=True)
        ]

    def map50(self, classes: Sequence[str], detections: Sequence[Float32Array]) -> float:
        """mAP@0.5 of detections in pixels of the input, whose labels are positions in ``classes``."""
        return ap50(match(with_boxes_of(classes, self.images), self.on_images(detections), classes))


def with_boxes_of(classes: Sequence[str], images: Sequence[BoxedImage]) -> list[BoxedImage]:
    """The images with none but the boxes of some labels: what a head does not answer for, it does not miss."""
    kept = set(classes)
    return [image.replaced(boxes=tuple(box for box in image.boxes if box.label in kept)) for image in images]


@dataclass(frozen=True)
class ValidationDetections:
    """The detections of every head (or deployment) in every image: K x 6, in pixels of the image.

    Labels are positions among those of the head. ``rows`` are the positions of the images in their split.
    """

    rows: Int64Array
    heads: Mapping[str, Sequence[Float32Array]]

    def to_bytes(self) -> bytes:
        """The detections as an npz archive: how many each image has, and all of them in one array."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"rows": self.rows}
        for name, images in self.heads.items():
            arrays[f"{name}/counts"] = np.array([len(one) for one in images], np.int64)
            # The empty array in front holds the shape where there is no image at all.
            arrays[f"{name}/detections"] = np.concatenate([np.empty((0, VALUES), np.float32), *images])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        return buffer.getvalue()


def read_val_detections(path: Path) -> ValidationDetections:
    """The detections in a file with the bytes of `ValidationDetections.to_bytes`.

    Raises:
        EdgetlError: the file is missing.
    """
    with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
        names = [key.removesuffix("/counts") for key in archive.files if key.endswith("/counts")]
        heads = {
            name: np.split(archive[f"{name}/detections"], np.cumsum(archive[f"{name}/counts"])[:-1]) for name in names
        }
        return ValidationDetections(archive["rows"], heads)
