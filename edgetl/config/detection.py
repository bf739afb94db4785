"""The section ``detection`` of a study file: how detection heads are trained and their boxes suppressed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from edgetl.config.fields import Fraction
from edgetl.yaml_file import Settings


class NmsSettings(Settings):
    """Greedy non-maximum suppression, label by label.

    Boxes that score less than ``score_threshold`` are dropped, and of two whose intersection over union is above
    ``iou_threshold`` the one that scores less. The best ``max_detections`` of an image are kept.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {
        "score": "score_threshold",
        "overlap": "iou_threshold",
        "detections": "max_detections",
    }

    # So low for average precision; to apply a higher one to the result is the same as to suppress with it.
    score_threshold: float = Field(default=0.01, ge=0.0, lt=1.0)
    iou_threshold: float = Field(default=0.45, gt=0.0, le=1.0)
    max_detections: int = Field(default=100, ge=1, le=1000)


class AugmentationSettings(Settings):
    """Random views of an image in addition to the plain one, the same in every epoch so that features can be cached.

    ``flip``: half of them are mirrored. ``scale``: zoomed in or out by up to this fraction. ``color_jitter``: the same
    for brightness, contrast and saturation. ``mosaic``: four images in one (Bochkovskiy et al. 2020, YOLOv4).
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"colour": "color_jitter"}

    views: int = Field(default=0, ge=0, le=64)
    flip: bool = True
    scale: float = Field(default=0.3, ge=0.0, lt=0.9)
    color_jitter: float = Field(default=0.3, ge=0.0, lt=1.0)
    mosaic: bool = False


class TrunkFinetuneSettings(Settings):
    """How the last layers of the trunk are tuned together with a head that was trained on the frozen trunk."""

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"rate": "learning_rate"}

    epochs: int = Field(default=5, ge=1)
    patience: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0.0)
    batch_size: int = Field(default=8, ge=1)


class DetectionSettings(Settings):
    """How detection heads are trained. The epoch with the best mAP@0.5 on validation is kept; ``patience`` ends it.

    ``anchors``: keep the network's own, or fit them to the training boxes by k-means; by default its own if it has any.
    ``learning_rate`` is by default 0.01 for a pretrained head, which is linear, 0.001 where it knows all labels
    already, and 0.003 for a pyramid. ``unfreeze`` is the fraction of the trunk's layers, counted from the end, that
    are tuned afterwards; both results are reported. ``cache_gb`` limits the disk space of features: images beyond it
    go through the trunk in every epoch.
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
