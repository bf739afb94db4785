"""The sections of a Darknet .cfg file: one record for each layer, with the layers it reads and its shape."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.train.darknet.syntax import Section

# The first layer reads the layer before it as all do: -1.
IMAGES = -1
# Published networks join a handful of maps; a hostile file could join each layer with all before it.
_MOST_SOURCES = 64


@dataclass(frozen=True)
class LayerShape:
    """The shape of a layer's output for one image of the size that [net] gives."""

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
    """A section after [net]. ``sources`` are the numbers of the layers that it reads, the nearest first."""

    section: Section
    sources: tuple[int, ...]
    shape: LayerShape


@dataclass(frozen=True)
class ConvolutionalSpec(LayerSpec):
    """[convolutional]. Pairs are vertical, horizontal; with batch normalisation it has no bias of its own."""

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
    """[local_avgpool]: padding is no part of the average."""


@dataclass(frozen=True)
class GlobalAveragePoolSpec(LayerSpec):
    """[avgpool]: the average over all positions."""


@dataclass(frozen=True)
class RouteSpec(LayerSpec):
    """[route]: its sources side by side, of each one's ``channels`` only part ``group`` of ``groups``, from 0."""

    channels: tuple[int, ...]
    groups: int
    group: int


@dataclass(frozen=True)
class ShortcutSpec(LayerSpec):
    """[shortcut]: the first source plus, on the channels that both have, each of the others."""

    channels: tuple[int, ...]
    activation: str


@dataclass(frozen=True)
class ProductSpec(LayerSpec):
    """[sam] and [scale_channels]: the product of two sources, one of which may be one value for a channel or place."""

    activation: str


@dataclass(frozen=True)
class UpsampleSpec(LayerSpec):
    """[upsample]: each value repeated ``stride`` x ``stride`` times and multiplied by ``factor``."""

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
    """[yolo] and [region]: how boxes are read from the convolution before it. The layer itself computes nothing."""

    classes: int
    scale: YoloScale


@dataclass
class PreviousLayers:
    """The layers that a section can read: those before it, and the images."""

    width: int
    height: int
    layers: list[LayerSpec] = field(default_factory=list)

    def previous(self, section: Section) -> LayerShape:
        """The shape of the layer before a section, or of the images.

        Raises:
            EdgetlError: that layer is the end of a branch.
        """
        return self.shape(section, section.number - 1) if self.layers else LayerShape(3, self.height, self.width)

    def shape(self, section: Section, number: int, key: str = "") -> LayerShape:
        """The shape of a layer's output.

        Raises:
            EdgetlError: it is no earlier layer, or the end of a branch.
        """
        if not 0 <= number < len(self.layers):
            raise section.fault(f"reads layer {number}, expected one that stands before it", key)
        read = self.layers[number]
        if isinstance(read, DetectionSpec | SoftmaxSpec) or read.section.name == "cost":
            raise section.fault(f"reads layer {number} [{read.section.name}], which is the end of a branch", key)
        return read.shape

    def named(self, section: Section, key: str) -> tuple[tuple[int, ...], list[LayerShape]]:
        """The numbers and shapes of the layers that an option names; negative numbers count back from the section.

        Raises:
            EdgetlError: it names none, or one that cannot be read.
        """
        numbers = tuple(number + section.number if number < 0 else number for number in section.wholes(key))
        if not numbers:
            raise section.fault(f"has no {key}, expected the layers that it reads")
        if len(numbers) > _MOST_SOURCES:
            raise section.fault(f"reads {len(numbers)} layers, expected no more than {_MOST_SOURCES}", key)
        return numbers, [self.shape(section, number, key) for number in numbers]
