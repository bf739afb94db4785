"""The sections of a study file: ``data``, ``backbone``, ``engine``, ``training``, ``detection``, ``budget``, others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from edgetl.config.fields import CutSetting, DataFormat, Fraction, ImageSize, PathOrFraction
from edgetl.yaml_file import Settings

# The formats whose images edgetl generates in the run directory.
GENERATED = frozenset({"digits", "synthetic"})
# The formats that each task can read.

FORMATS: dict[str, frozenset[str]] = {
    "classify": frozenset({"image-folder", "csv", "digits", "synthetic"}),
    "detect": frozenset({"coco", "yolo", "voc", "synthetic"}),
}

_TRAIN_FILES = {
    "csv": "the file with the columns path,label",
    "coco": "the JSON file with the annotations",
    "yolo": "the folder of images, or the file that lists them",
    "voc": "the file that lists the names of the images, such as ImageSets/Main/train.txt",
}


class DataSettings(Settings):
    """Where the images are and how they are split.

    ``train``, ``val`` and ``test`` are a sub-folder (image-folder), a file (csv, coco: annotations, voc: a list of
    names) or either (yolo: images) below ``root``, or a fraction to split off ``train`` at random (stratified, seeded).

    For boxes: ``images`` is the folder of the images below ``root`` (by default ``root`` itself for coco, JPEGImages
    for voc), ``names`` the file below ``root`` with yolo's class names, one per line or in YAML under the key
    ``names``; ``scenes`` is the number of generated images.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {
        "overlap": "split_duplicates",
        "max_broken_share": "max_broken_fraction",
    }

    format: DataFormat
    root: str | None = None
    train: str | None = None
    val: PathOrFraction = 0.1
    test: PathOrFraction = 0.2
    per_label: int = Field(default=200, ge=3)
    images: str | None = None
    names: str | None = None
    scenes: int = Field(default=600, ge=10)
    split_duplicates: Literal["refuse", "drop"] = "refuse"
    max_broken_fraction: float = Field(default=0.01, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _keys_fit_the_format(self) -> DataSettings:
        generated = self.format in GENERATED
        if not generated and self.root is None:
            raise ValueError(f"format {self.format} needs root: the folder that holds the data")
        if generated and (self.root or self.train or isinstance(self.val, str) or isinstance(self.test, str)):
            raise ValueError(
                f"format {self.format} makes its own images: val and test are fractions, root and train are left out"
            )
        expected = _TRAIN_FILES.get(self.format)
        if expected is not None and self.train is None:
            raise ValueError(f"format {self.format} needs train: {expected}")
        if self.names is not None and self.format != "yolo":
            raise ValueError(f"names is for format yolo; {self.format} names its classes itself")
        if self.names is None and self.format == "yolo":
            raise ValueError("format yolo needs names: the file with its class names, such as coco.names or data.yaml")
        if self.images is not None and self.format not in {"coco", "voc"}:
            raise ValueError(f"images is for formats coco and voc; {self.format} says itself where they are")
        if isinstance(self.val, float) and isinstance(self.test, float) and self.val + self.test >= 1.0:
            raise ValueError(f"val {self.val} and test {self.test} leave nothing to train on")
        return self


class BackboneSettings(Settings):
    """The pretrained network. ``cut: null`` freezes all of it but the head.

    With ``truncate``, heads directly on the output of every cut are tried too, without the deeper layers.
    ``image_size: null`` is that of a Darknet cfg, and 224 for other networks. ``fit`` is how a detector gets the whole
    image; ``labels`` is the file of the labels that its pretrained head knows, such as coco.names.
    """

    name: str
    weights: str | None = "default"
    image_size: ImageSize = None
    fit: Literal["letterbox", "stretch"] | None = None
    labels: str | None = None
    cut: CutSetting = None
    truncate: bool = False

    @field_validator("name")
    @classmethod
    def _known_library(cls, name: str) -> str:
        library, _, model = name.partition("/")
        if library not in {"timm", "torchvision", "edgetl", "darknet"} or not model:
            raise ValueError(
                f"{name!r} is not LIBRARY/MODEL; expected timm/NAME, torchvision/NAME, darknet/PATH.cfg or edgetl/nano"
            )
        if library == "edgetl" and model != "nano":
            raise ValueError(f"{name!r} is unknown; edgetl's own backbone is edgetl/nano")
        return name

    @model_validator(mode="after")
    def _keys_fit_the_library(self) -> BackboneSettings:
        if self.truncate and self.cut is None:
            raise ValueError("truncate drops the layers above a cut: name one, or cut: sweep")
        is_darknet = self.name.startswith("darknet/")
        if is_darknet and self.weights == "default":
            raise ValueError("a Darknet cfg needs weights: its .weights file, or null for random ones")
        if self.labels is not None and not is_darknet:
            raise ValueError(f"labels is for a Darknet detector; {self.name} has no pretrained boxes")
        return self


class EngineSettings(Settings):
    """How TensorRT builds and runs the study's engines. A runtime refuses at building what it does not have.

    ``cuda_graph`` and ``share_scratch`` are for running: a study's engines run one after another, so they can share
    scratch memory.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"level": "optimization_level"}

    workspace_mb: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    dla_core: int | None = Field(default=None, ge=0)
    gpu_fallback: bool = False
    sparse: bool = False
    version_compatible: bool = False
    hardware_compatible: Literal["ampere-plus", "same-compute-capability"] | None = None
    cuda_graph: bool = False
    share_scratch: bool = False


class FinetuneSettings(Settings):
    """How the layers above a cut are tuned, after their head has converged.

    ``learning_rate`` is the head's; every layer below gets ``layer_decay`` times that of the layer above it. Tuning
    ends after ``epochs``, or ``patience`` epochs without a lower validation loss; the best epoch is kept.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"rate": "learning_rate"}

    epochs: int = Field(default=10, ge=1)
    patience: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0.0)
    layer_decay: float = Field(default=0.8, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    batch_size: int = Field(default=32, ge=1)


class TrainingSettings(Settings):
    """How heads are trained. Every ``l2`` is tried for every head, and the validation loss chooses.

    ``quantization_aware``: heads learn from the features that the trunk gives in INT8, and layers above a cut are
    rounded during tuning as INT8 rounds them.
    """

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {"regularisation": "l2"}

    l2: tuple[Annotated[float, Field(gt=0.0)], ...] = (3e-4, 3e-3, 1e-2, 3e-2, 1e-1)
    views: int = Field(default=1, ge=1, le=64)
    flip: bool = False
    quantization_aware: bool = False
    finetune: FinetuneSettings = FinetuneSettings()

    @field_validator("l2")
    @classmethod
    def _at_least_one(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if not strengths:
            raise ValueError("is empty; name at least one")
        return strengths


class SearchSettings(Settings):
    """How many trees of each deployment are built and measured, of all that the cuts allow."""

    trees: int = Field(default=6, ge=1)


class AccuracyControl(Settings):
    """Layers are excluded from INT8 until no deployment loses more than this on validation, compared with its FP32."""

    max_accuracy_drop: float = Field(ge=0.0, le=1.0)


class BudgetSettings(Settings):
    """The limits that a candidate must keep. A limit that is left out does not apply."""

    max_accuracy_drop: float | None = Field(default=None, ge=0.0, le=1.0)
    min_accuracy: float | None = Field(default=None, ge=0.0, le=1.0)
    max_latency_ms: float | None = Field(default=None, gt=0.0)
    max_memory_mb: float | None = Field(default=None, gt=0.0)
    max_energy_mj: float | None = Field(default=None, gt=0.0)


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
