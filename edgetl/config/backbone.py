"""The section ``backbone`` of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from edgetl.config.fields import CutSetting, ImageSize
from edgetl.yaml_file import Settings


class BackboneSettings(Settings):
    """The pretrained network. ``cut: null`` freezes all of it but the head.

    With ``truncate``, heads directly on the output of every cut are tried too, the deeper layers dropped.
    ``image_size: null`` is what a Darknet cfg says, for other networks 224. A detector sees the whole image
    (``fit``); ``labels`` is the file of the labels that its pretrained ending knows, such as coco.names.
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
    def _something_to_truncate(self) -> BackboneSettings:
        if self.truncate and self.cut is None:
            raise ValueError("truncate drops the layers above a cut: name one, or cut: sweep")
        return self

    @model_validator(mode="after")
    def _files_of_darknet(self) -> BackboneSettings:
        is_darknet = self.name.startswith("darknet/")
        if is_darknet and self.weights == "default":
            raise ValueError("a Darknet cfg needs weights: its .weights file, or null for random ones")
        if self.labels is not None and not is_darknet:
            raise ValueError(f"labels is for a Darknet detector; {self.name} has no pretrained boxes")
        return self
