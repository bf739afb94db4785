"""What a model says of images: what `edgetl predict --json` prints."""

from __future__ import annotations

from typing import Literal

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.index import BrokenFile


class Detection(Artifact):
    """An object that was found: left, top, right and bottom in pixels of the upright image."""

    label: str
    score: float
    xyxy: tuple[float, float, float, float]


class Guess(Artifact):
    """A label that a head gives to an image."""

    head: str
    label: str
    probability: float


class Predicted(Artifact):
    """What is said of one upright image, or of one frame of a video; the first frame is 0.

    ``detections``, best first, where the model detects, and ``labels``, head by head, where it classifies.
    """

    path: str
    frame: int | None = None
    seconds: float | None = None
    width: int
    height: int
    detections: tuple[Detection, ...] | None = None
    labels: tuple[Guess, ...] | None = None


class Predictions(Artifact):
    """What is said of some images, and which could not be read."""

    schema_version: Literal[1] = 1
    model: str
    images: tuple[Predicted, ...]
    broken: tuple[BrokenFile, ...] = ()
