"""What training writes: backbone reference, heads, labels, preprocessing, metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgetl.artifacts.files import Artifact
from edgetl.artifacts.index import BrokenFile
from edgetl.config import LARGEST_IMAGE, OTHER

Activation = Literal["softmax", "sigmoid"]

IMAGES = "images"
"""Input of every graph: N x 3 x S x S, RGB in [0, 1]."""

TRUNK = "trunk/"
"""What every name inside a trunk begins with; no group may be named so."""

FEATURES = f"{TRUNK}features"
"""Output of a trunk graph: pooled features, N x D."""


class Preprocessing(Artifact):
    """How an image becomes the graph's input; the normalisation itself is inside the graph.

    The short side is resized to ``image_size`` with Pillow, the centre is cropped to a square, and the pixels
    are RGB in [0, 1], N x 3 x image_size x image_size.
    """

    image_size: int = Field(ge=1, le=LARGEST_IMAGE)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class BackboneReference(Artifact):
    """Which trunk the heads belong to. ``fingerprint`` is the sha256 over its weights and cut."""

    name: str
    weights: str | None
    fingerprint: str
    feature_dim: int
    parameters: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Head(Artifact):
    """One trained head. ``classes`` are its outputs in order; a specialist's last one is ``other``."""

    name: str
    classes: tuple[str, ...]
    activation: Activation
    regularisation: float
    temperature: float
    val_loss: float
    val_accuracy: float

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(name for name in self.classes if name != OTHER)


class Bundle(Artifact):
    """The trained heads (weights in ``heads.safetensors``) and the trunk (``trunk.onnx``) they stand on."""

    schema_version: Literal[1] = 1
    backbone: BackboneReference
    preprocessing: Preprocessing
    groups: dict[str, tuple[str, ...]]
    heads: tuple[Head, ...]
    data_digest: str
    broken: tuple[BrokenFile, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label for group in self.groups.values() for label in group)

    def head(self, name: str) -> Head:
        return next(head for head in self.heads if head.name == name)
