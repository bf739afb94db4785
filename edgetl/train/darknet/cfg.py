"""Darknet .cfg files: a network as a list of layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetl.errors import EdgetlError
from edgetl.train.darknet.reading import read_layer
from edgetl.train.darknet.sections import ConvolutionalSpec, DetectionSpec, LayerSpec, PreviousLayers, SoftmaxSpec
from edgetl.train.darknet.syntax import read_sections

# Far above any published network; they bound the memory that a hostile file can ask for.
_LONGEST_SIDE = 1 << 13
_MOST_WEIGHTS = 1 << 29


@dataclass(frozen=True)
class Cfg:
    """A network as its .cfg file describes it, for images of ``width`` x ``height``.

    ``layers`` stand at Darknet's numbers. Some are [yolo] or [region] sections, or else one is [softmax].
    """

    path: Path
    width: int
    height: int
    layers: tuple[LayerSpec, ...]

    @property
    def convolutions(self) -> tuple[ConvolutionalSpec, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, ConvolutionalSpec))

    @property
    def detections(self) -> tuple[DetectionSpec, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, DetectionSpec))


def read_cfg(path: Path, size: int | tuple[int, int] | None = None) -> Cfg:
    """Read the .cfg file of a detector ([yolo] or [region]) or a classifier ([softmax]).

    ``size`` replaces the file's image size: a square's side, or width and height.

    Raises:
        EdgetlError: the file is missing, too large or no .cfg file, or a section cannot be read (see `read_layer`).
    """
    sections = read_sections(path)
    if not sections or sections[0].name != "net":
        found = f"begins with [{sections[0].name}]" if sections else "holds no sections"
        raise EdgetlError(f"{path} {found}, expected a Darknet .cfg file, which begins with [net]")
    net, *rest = sections
    net.whole("channels", 0, 3, 3)  # only checked: images are RGB everywhere here
    width, height = (net.whole(side, 0, 1, _LONGEST_SIDE) for side in ("width", "height"))
    if size is not None:
        width, height = (size, size) if isinstance(size, int) else size
    below = PreviousLayers(width, height)
    for section in rest:
        below.layers.append(read_layer(section, below))
    cfg = Cfg(path, width, height, tuple(below.layers))
    total = 0
    for layer in cfg.convolutions:
        filters, channels, tall, wide = layer.kernels
        total += filters * (channels * tall * wide + 4)  # 4: bias, or scale, mean, variance and bias
        if total > _MOST_WEIGHTS:
            raise layer.section.fault(f"takes the network above {_MOST_WEIGHTS} weights, the most that are read")
    if not cfg.layers:
        raise EdgetlError(f"{cfg.path} has no layers, expected sections such as [convolutional] after [net]")
    softmax = sum(isinstance(layer, SoftmaxSpec) for layer in cfg.layers)
    if softmax + bool(cfg.detections) != 1:
        raise cfg.layers[-1].section.fault(
            "ends a network that neither detects nor classifies, expected [yolo] or [region] sections, or one [softmax]"
        )
    return cfg
