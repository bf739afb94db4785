"""The bundle that training a detector writes: trunk, heads, labels, preprocessing, metrics."""

from __future__ import annotations

from edgetl.artifacts.bundle import Head, TrainedHeads
from edgetl.artifacts.files import Artifact

# A detection is left, top, right, bottom (pixels of the network's input), score, and label position.
VALUES = 6


class YoloScale(Artifact):
    """One raw output of a YOLO network and how it is read: N x A * (5 + C) x H x W.

    For each of A anchors: x, y, w, h, objectness and C classes, in that order along the channels.

    Attributes:
        anchors: width and height of each, in pixels of the network's input.
        scale_xy: Darknet's ``scale_x_y``: how far a box's centre may leave its cell (Bochkovskiy et al. 2020, YOLOv4).
        activated: Darknet's ``new_coords``: the outputs went through a sigmoid already, and sides are ``(2 v)^2``
            anchors (Wang et al. 2020, Scaled-YOLOv4).
        softmax: classes exclude each other (region layers, YOLOv2).
    """

    anchors: tuple[tuple[float, float], ...]
    scale_xy: float = 1.0
    activated: bool = False
    softmax: bool = False


class DetectionHead(Head):
    """A detection head.

    ``val_ap50`` is mAP@0.5 on validation, ``untrained_ap50`` that before training, ``frozen_ap50`` that on the frozen
    trunk, for a tuned head.
    """

    scales: tuple[YoloScale, ...]
    epochs: int
    val_ap50: float
    untrained_ap50: float
    frozen_ap50: float | None = None
    known: tuple[str, ...] = ()

    @property
    def raws(self) -> tuple[str, ...]:
        """Its raw outputs in the graph of all networks."""
        return tuple(f"{self.name}/raw{number}" for number in range(len(self.scales)))


class DetectionBundle(TrainedHeads[DetectionHead]):
    """The trained detectors; ``network.onnx`` holds all of them, from images to raw outputs ``HEAD/rawN``."""
