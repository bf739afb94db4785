"""What trained heads find on the validation images, written down for the search."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.detector_bundle import VALUES
from edgetl.artifacts.files import read_bytes


@dataclass(frozen=True)
class ValidationDetections:
    """For each head the detections of every image (K x 6, in pixels of the image, positions of the head's labels).

    ``rows`` are the positions of the images among those of validation.
    """

    rows: Int64Array
    heads: Mapping[str, Sequence[Float32Array]]

    def of(self, head: str) -> Sequence[Float32Array]:
        return self.heads[head]

    def to_bytes(self) -> bytes:
        """As an npz archive."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"rows": self.rows}
        for name, images in self.heads.items():
            arrays[f"{name}/counts"] = np.array([len(one) for one in images], np.int64)
            arrays[f"{name}/detections"] = np.concatenate([np.empty((0, VALUES), np.float32), *images])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        return buffer.getvalue()


def read_val_detections(path: Path) -> ValidationDetections:
    """What `ValidationDetections.to_bytes` made.

    Raises:
        EdgetlError: the file is missing.
    """
    with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
        names = [key.removesuffix("/counts") for key in archive.files if key.endswith("/counts")]
        heads = {
            name: np.split(archive[f"{name}/detections"], np.cumsum(archive[f"{name}/counts"])[:-1]) for name in names
        }
        return ValidationDetections(archive["rows"], heads)
