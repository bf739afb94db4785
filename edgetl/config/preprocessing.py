"""The input contract of a model: how the pixels of a picture become the numbers of its input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgetl.errors import EdgetlError, did_you_mean
from edgetl.yaml_file import Settings, load_yaml

Fit = Literal["crop", "letterbox", "stretch"]
Interpolation = Literal["bilinear", "bicubic"]

UNIT_SCALE = 1 / 255  # takes 8-bit pixels to [0, 1]
# Wide enough for the mean of 16-bit pixels.

_Mean = Annotated[float, Field(ge=-65536, le=65536)]
_Std = Annotated[float, Field(gt=1e-6, le=65536)]


class PixelValues(Settings):
    """How pixels from 0 to 255 become numbers: ``(pixel * scale - mean) / std``. The default is RGB in [0, 1].

    ``mean`` and ``std`` have one number for each channel, in the order of the tensor's channels, ``color``.
    """

    color: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(default=UNIT_SCALE, gt=0.0, le=65536)
    mean: tuple[_Mean, _Mean, _Mean] = (0.0, 0.0, 0.0)
    std: tuple[_Std, _Std, _Std] = (1.0, 1.0, 1.0)

    def __str__(self) -> str:
        """For example ``BGR in 0..255, minus mean 103.9, 116.8, 123.7``."""
        interval = {UNIT_SCALE: "[0, 1]", 1.0: "0..255"}.get(self.scale, f"0..{255 * self.scale:g}")
        text = f"{self.color.upper()} in {interval}"
        if any(self.mean):
            text += f", minus mean {', '.join(f'{value:g}' for value in self.mean)}"
        if self.std != (1.0, 1.0, 1.0):
            text += f", over std {', '.join(f'{value:g}' for value in self.std)}"
        return text


class InputContract(PixelValues):
    """How a picture becomes a model's input, except for the size, which the model's file holds. See `Preprocessing`."""

    fit: Fit = "crop"
    interpolation: Interpolation = "bilinear"


# The usual contracts, by name.
CONTRACTS = {
    # torchvision.transforms.Normalize as its model zoo and timm's default use it.
    "imagenet": InputContract(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    # For models that normalise by themselves; Ultralytics' models take this, too.
    "unit": InputContract(),
    # timm's Inception and ViT weights, and Keras' mode "tf": [-1, 1].
    "symmetric": InputContract(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "raw255": InputContract(scale=1.0),
    # Keras' mode "caffe".
    "caffe": InputContract(color="bgr", scale=1.0, mean=(103.939, 116.779, 123.68)),
}


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
