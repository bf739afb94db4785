"""The bundle that training writes: backbone reference, heads, labels, preprocessing, metrics."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import Artifact
from edgetl.config import LARGEST_IMAGE, CalibrationRecipe, Fit, Interpolation, PixelValues

Activation = Literal["softmax", "sigmoid"]

# The input of every graph: N x 3 x S x S, RGB in [0, 1]. As a cut: nothing is frozen.
IMAGES = "images"
# The cut above the pooled features: everything is frozen but the head.
TOP = "top"
# Begins the name of a cut above which the layers were dropped.
TRUNCATED = "truncated-"
# The network in which all layers are frozen, and its pooled features, N x D, in the graph of all networks.
TRUNK = "trunk"
FEATURES = f"{TRUNK}/features"

_UNIT = PixelValues()


class Preprocessing(PixelValues, Artifact):
    """How an image becomes a graph's input, N x 3 x height x width.

    ``fit`` is ``crop``: the short side is resized with Pillow and the centre cropped to a square; ``letterbox``: the
    whole image is resized and put between grey bars; or ``stretch``: it is resized without keeping its aspect ratio.
    Graphs that edgetl trained take RGB in [0, 1] and normalise it themselves.
    """

    width: int = Field(ge=1, le=LARGEST_IMAGE)
    height: int = Field(ge=1, le=LARGEST_IMAGE)
    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests are taken over this: a field that came later must not change what was written before it.
        fields: dict[str, Any] = serialize(self)
        values = {name: fields.pop(name) for name in PixelValues.model_fields if name in fields}
        return fields | {name: value for name, value in values.items() if getattr(self, name) != getattr(_UNIT, name)}

    @classmethod
    def square(cls, side: int, interpolation: Interpolation = "bilinear") -> Preprocessing:
        """Preprocessing that crops the centre of an image to a square, as classification networks expect it."""
        return cls(width=side, height=side, interpolation=interpolation)

    def __str__(self) -> str:
        """For example ``RGB in [0, 1], crop to 224 x 224``."""
        return f"{super().__str__()}, {self.fit} to {self.width} x {self.height}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image as the graph takes it: channels, height, width."""
        return 3, self.height, self.width

    @model_validator(mode="after")
    def _crops_are_square(self) -> Preprocessing:
        if self.fit == "crop" and self.width != self.height:
            raise ValueError(f"fit crop takes squares, not {self.width} x {self.height}; use letterbox or stretch")
        return self


def role_of(head: str) -> str:
    """What a head of that name answers for, whatever its cut: a group, ``combined`` or ``one-vs-rest``."""
    return head.partition("@")[0]


class BackboneReference(Artifact):
    """Which trunk the heads belong to. ``fingerprint`` is the sha256 over its weights."""

    name: str
    weights: str | None
    fingerprint: str
    feature_dim: int
    parameters: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Head(Artifact):
    """A trained head. ``classes`` are its outputs in order; ``cut`` is the layer where the frozen part ends.

    In a cascade's second level, ``first_level`` is the head whose probabilities, or raw output, it reads too.
    """

    name: str
    classes: tuple[str, ...]
    cut: str = TOP
    first_level: str | None = None

    @property
    def role(self) -> str:
        """What the head answers for, whatever its cut: a group, ``combined`` or ``one-vs-rest``."""
        return role_of(self.name)

    @property
    def place(self) -> str:
        """Its cut as names contain it."""
        return self.cut


class ClassificationHead(Head):
    """A head of labels; a specialist's last class is ``other``.

    The layers above ``cut`` were tuned for this head, or dropped where it is ``truncated``. ``features`` is the tensor
    of the trunk's graph that its linear layer reads. Of a tuned head, ``probe_val_loss`` and ``probe_val_accuracy`` are
    those before tuning, which took ``epochs``.
    """

    activation: Activation
    truncated: bool = False
    features: str = FEATURES
    l2: float
    temperature: float
    val_loss: float
    val_accuracy: float
    probe_val_loss: float | None = None
    probe_val_accuracy: float | None = None
    epochs: int | None = None

    @property
    def place(self) -> str:
        return f"{TRUNCATED}{self.cut}" if self.truncated else self.cut


HeadT = TypeVar("HeadT", bound=Head)


class Int8TrainingRecord(Artifact):
    """The QDQ format and calibration recipe of the INT8 trunk whose features the heads were trained on."""

    qdq_format: Literal["tensorrt", "onnxruntime"]
    recipe: CalibrationRecipe


class TrainedHeads(Artifact, Generic[HeadT]):
    """The heads of a study, and what all of them share."""

    schema_version: Literal[2] = 2
    backbone: BackboneReference
    preprocessing: Preprocessing
    groups: dict[str, tuple[str, ...]]
    heads: tuple[HeadT, ...]
    data_digest: str
    broken: tuple[BrokenFile, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for group in self.groups.values() for label in group)


class Bundle(TrainedHeads[ClassificationHead]):
    """The trained heads (weights in ``heads.safetensors``) and their trunk (``trunk.onnx``).

    ``int8`` is there for heads trained for INT8; ``calibration.json`` then holds the ranges.
    """

    int8: Int8TrainingRecord | None = None
