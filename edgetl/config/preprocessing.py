"""What a user says of a model's input: how the pixels of a picture become its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgetl.errors import EdgetlError, did_you_mean
from edgetl.yaml_file import Settings, load_yaml

Fit = Literal["crop", "letterbox", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]

UNIT_SCALE = 1 / 255
"""The scale that takes 8-bit pixels to [0, 1]."""

_Mean = Annotated[float, Field(ge=-65536, le=65536)]
_Std = Annotated[float, Field(gt=1e-6, le=65536)]


class PixelValues(Settings):
    """The numbers of a tensor: ``(pixel * scale - mean) / std``, with pixels from 0 to 255.

    ``mean`` and ``std`` have one number for each channel, in the order of the tensor's channels, ``color``. Without any
    setting a tensor is RGB in [0, 1].
    """

    color: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(default=UNIT_SCALE, gt=0.0, le=65536)
    mean: tuple[_Mean, _Mean, _Mean] = (0.0, 0.0, 0.0)
    std: tuple[_Std, _Std, _Std] = (1.0, 1.0, 1.0)

    def __str__(self) -> str:
        """Such as ``BGR in 0..255 minus 103.9, 116.8, 123.7``."""
        reach = {UNIT_SCALE: "[0, 1]", 1.0: "0..255"}.get(self.scale, f"0..{255 * self.scale:g}")
        said = f"{self.color.upper()} in {reach}"
        if any(self.mean):
            said += f", minus mean {', '.join(f'{value:g}' for value in self.mean)}"
        if self.std != (1.0, 1.0, 1.0):
            said += f", over std {', '.join(f'{value:g}' for value in self.std)}"
        return said


class InputContract(PixelValues):
    """How a picture becomes a model's input, except for the size, which the model's file tells. See `Preprocessing`."""

    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"


CONTRACTS = {
    # torchvision.transforms.Normalize as its model zoo and timm's default use it.
    "imagenet": InputContract(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # The model normalises by itself; Ultralytics' models take this, too.
    "unit": InputContract(),
    # timm's Inception and ViT weights, and Keras' mode "tf": [-1, 1].
    "symmetric": InputContract(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "raw255": InputContract(scale=1.0),
    # Keras' mode "caffe".
    "caffe": InputContract(color="bgr", scale=1.0, mean=(103.939, 116.779, 123.68)),
}
"""The usual ways, by name."""


def load_contract(name: str) -> InputContract:
    """The input contract of a name in `CONTRACTS`, or in a YAML or JSON file.

    Raises:
        EdgetlError: there is no such name, or no such file, or the file has faults.
    """
    if name in CONTRACTS:
        return CONTRACTS[name]
    path = Path(name)
    if path.suffix not in {".yaml", ".yml", ".json"}:
        raise EdgetlError(
            f"--preprocessing {name!r} is not known{did_you_mean(name, CONTRACTS)}; use {', '.join(CONTRACTS)}, or a "
            "file that ends in .yaml or .json"
        )
    return load_yaml(path, InputContract)
