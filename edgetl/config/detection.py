"""The section ``detection`` of a study file: how a detector's ending is trained, and what becomes of its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from edgetl.config.fields import Fraction
from edgetl.yaml_file import Settings


class NmsSettings(Settings):
    """What becomes of overlapping boxes of one label (greedy non-maximum suppression, label by label).

    Boxes that score less than ``score_threshold`` are dropped; so are, of two that overlap more than ``iou_threshold``
    (intersection over union), the one that scores less. At most ``max_detections`` are given for an image, the best
    ones. A reader may apply a higher threshold to the result: what is left is the same.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {
        "score": "score_threshold",
        "overlap": "iou_threshold",
        "detections": "max_detections",
    }

    score_threshold: float = Field(default=0.01, ge=0.0, lt=1.0)
    iou_threshold: float = Field(default=0.45, gt=0.0, le=1.0)
    max_detections: int = Field(default=100, ge=1, le=1000)


class AugmentationSettings(Settings):
    """Random views of an image beside the plain one, the same in every epoch, so that their features can be kept.

    ``flip``: half of them are mirrored. ``scale``: zoomed in or out by up to this share. ``color_jitter``: brightness,
    contrast and saturation within this share. ``mosaic``: four images in one (Bochkovskiy et al. 2020, YOLOv4).
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"colour": "color_jitter"}

    views: int = Field(default=0, ge=0, le=64)
    flip: bool = True
    scale: float = Field(default=0.3, ge=0.0, lt=0.9)
    color_jitter: float = Field(default=0.3, ge=0.0, lt=1.0)
    mosaic: bool = False


class TrunkFinetuneSettings(Settings):
    """How the last layers of the trunk are tuned together with a head that has been trained on them frozen."""

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"rate": "learning_rate"}

    epochs: int = Field(default=5, ge=1)
    patience: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0.0)
    batch_size: int = Field(default=8, ge=1)


class DetectionSettings(Settings):
    """How endings are trained. Validation mAP@0.5 chooses the epoch; ``patience`` epochs without a better one end it.

    ``anchors`` are the network's own, or fitted to the training boxes by k-means; left out, its own where it has any.
    ``learning_rate`` left out is 0.01 for a pretrained ending, which is linear, 0.001 where it knows all labels
    already, and 0.003 for a pyramid. ``unfreeze`` is the share of the trunk's layers, the last ones, that are tuned
    afterwards; the result is reported beside the frozen one. ``cache_gb`` bounds the disk that features take: images
    beyond it go through the trunk in every epoch.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"rate": "learning_rate", "suppression": "nms"}

    anchors: Literal["keep", "fit"] | None = None
    loss: Literal["yolo", "ciou"] = "yolo"
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=12, ge=1)
    learning_rate: float | None = Field(default=None, gt=0.0)
    weight_decay: float = Field(default=5e-4, ge=0.0)
    batch_size: int = Field(default=16, ge=1)
    augmentation: AugmentationSettings = AugmentationSettings()
    unfreeze: Fraction | None = None
    finetune: TrunkFinetuneSettings = TrunkFinetuneSettings()
    pyramid_channels: int = Field(default=128, ge=8, le=1024)
    cache_gb: float = Field(default=20.0, ge=0.0)
    nms: NmsSettings = NmsSettings()
