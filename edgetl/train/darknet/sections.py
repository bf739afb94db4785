"""What the sections of a Darknet .cfg file say: one frozen record for each, with what it reads and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.train.darknet.syntax import Section

IMAGES = -1
"""The number of what the first layer reads."""


@dataclass(frozen=True)
class LayerShape:
    """Of a layer's output for one image of the size that [net] gives."""

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        return f"{self.channels} x {self.height} x {self.width}"


@dataclass(frozen=True)
class LayerSpec:
    """A section after [net]. ``sources`` are the numbers of the layers it reads, the nearest first."""

    section: Section
    sources: tuple[int, ...]
    shape: LayerShape


@dataclass(frozen=True)
class ConvolutionalSpec(LayerSpec):
    """Pairs are vertical, horizontal. ``normalised``: with batch normalisation, and then without a bias of its own."""

    channels: int
    size: int
    strides: tuple[int, int]
    padding: int
    dilation: int
    groups: int
    normalised: bool
    activation: str

    @property
    def kernels(self) -> tuple[int, int, int, int]:
        return (self.shape.channels, self.channels // self.groups, self.size, self.size)


@dataclass(frozen=True)
class PoolSpec(LayerSpec):
    """[maxpool] and [local_avgpool]. ``padding`` is that of both sides together: the first gets the smaller half."""

    size: int
    strides: tuple[int, int]
    padding: int


@dataclass(frozen=True)
class MaxPoolSpec(PoolSpec):
    pass


@dataclass(frozen=True)
class AveragePoolSpec(PoolSpec):
    """Padding does not count."""


@dataclass(frozen=True)
class GlobalAveragePoolSpec(LayerSpec):
    """[avgpool]: over all positions."""


@dataclass(frozen=True)
class RouteSpec(LayerSpec):
    """Its sources side by side, of the ``channels`` of each the ``group``-th of ``groups`` parts, counted from 0."""

    channels: tuple[int, ...]
    groups: int
    group: int


@dataclass(frozen=True)
class ShortcutSpec(LayerSpec):
    """The sum of its sources. The first one's channels are kept; of the others, those in common with it are added."""

    channels: tuple[int, ...]
    activation: str


@dataclass(frozen=True)
class ProductSpec(LayerSpec):
    """[sam] and [scale_channels]: the product of two sources, one of which may be one value for a channel or place."""

    activation: str


@dataclass(frozen=True)
class UpsampleSpec(LayerSpec):
    """Each value ``stride`` x ``stride`` times, times ``factor``."""

    stride: int
    factor: float


@dataclass(frozen=True)
class ReorgSpec(LayerSpec):
    stride: int


@dataclass(frozen=True)
class SoftmaxSpec(LayerSpec):
    """The end of a classifier."""


@dataclass(frozen=True)
class IdentitySpec(LayerSpec):
    """[dropout] and [cost]: nothing outside training."""


@dataclass(frozen=True)
class DetectionSpec(LayerSpec):
    """[yolo] and [region]: how the convolution under it is read. Nothing here is computed from it."""

    classes: int
    scale: YoloScale
