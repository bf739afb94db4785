"""The section ``detection`` of a study file: how a detector's ending is trained, and what becomes of its boxes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetl.config.fields import Percent
from edgetl.yaml_file import Frozen


class Suppression(Frozen):
    """What becomes of overlapping boxes of one label (greedy non-maximum suppression, label by label).

    Boxes that score less than ``score`` are dropped; so are, of two that overlap more than ``overlap`` (intersection
    over union), the one that scores less. At most ``detections`` are given for an image, the best ones. A reader may
    apply a higher threshold to the result: what is left is the same.
    """

    score: float = Field(default=0.01, ge=0.0, lt=1.0)
    overlap: float = Field(default=0.45, gt=0.0, le=1.0)
    detections: int = Field(default=100, ge=1, le=1000)


class Augmentation(Frozen):
    """Random views of an image beside the plain one, the same in every epoch, so that their features can be kept.

    ``flip``: half of them are mirrored. ``scale``: zoomed in or out by up to this share. ``colour``: brightness,
    contrast and saturation within this share. ``mosaic``: four images in one (Bochkovskiy et al. 2020, YOLOv4).
    """

    views: int = Field(default=0, ge=0, le=64)
    flip: bool = True
    scale: float = Field(default=0.3, ge=0.0, lt=0.9)
    colour: float = Field(default=0.3, ge=0.0, lt=1.0)
    mosaic: bool = False


class JointTuning(Frozen):
    """How the last layers of the trunk are tuned together with a head that has been trained on them frozen."""

    epochs: int = Field(default=5, ge=1)
    patience: int = Field(default=2, ge=1)
    rate: float = Field(default=1e-4, gt=0.0)
    batch_size: int = Field(default=8, ge=1)


class Detection(Frozen):
    """How endings are trained. Validation mAP@0.5 chooses the epoch; ``patience`` epochs without a better one end it.

    ``anchors`` are the network's own, or fitted to the training boxes by k-means; left out, its own where it has any.
    ``rate`` left out is 0.01 for a pretrained ending, which is linear, 0.001 where it knows all labels already, and
    0.003 for a pyramid.
    ``unfreeze`` is the share of the trunk's layers, the last ones, that are tuned afterwards; the result is reported
    beside the frozen one.
    ``cache_gb`` bounds the disk that features take: images beyond it go through the trunk in every epoch.
    """

    anchors: Literal["keep", "fit"] | None = None
    loss: Literal["yolo", "ciou"] = "yolo"
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=12, ge=1)
    rate: float | None = Field(default=None, gt=0.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    batch_size: int = Field(default=16, ge=1)
    augmentation: Augmentation = Augmentation()
    unfreeze: Percent | None = None
    finetune: JointTuning = JointTuning()
    pyramid_channels: int = Field(default=128, ge=8, le=1024)
    cache_gb: float = Field(default=20.0, ge=0.0)
    suppression: Suppression = Suppression()
