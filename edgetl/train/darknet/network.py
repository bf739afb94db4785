"""A Darknet network as a PyTorch module, whole or without its endings."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.errors import EdgetlError
from edgetl.train.darknet import modules, sections
from edgetl.train.darknet.cfg import Cfg


@dataclass(frozen=True)
class DetectionLayer:
    """A [yolo] or [region] section: the path of the module under it, whose output it reads, and how."""

    path: str
    classes: int
    scale: YoloScale


class Darknet(nn.Module):
    """N x 3 x H x W images, RGB in [0, 1], to what the network is for.

    A detector gives the raw output of the layer under every [yolo] and [region] section, in their order, each
    N x A * (5 + C) x H x W; a classifier gives N x C scores that add up to one. `strip_detection_layers` and
    `strip_classifier` leave what those read.

    Attributes:
        cfg: where it comes from.
        endings: of a detector, how each output is read.
        layers: at ``layers.N`` what computes layer N, as Darknet counts them.
    """

    def __init__(self, cfg: Cfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.width, self.height = cfg.width, cfg.height
        self.detection_layers = tuple(
            DetectionLayer(_path(layer.sources[0]), layer.classes, layer.scale) for layer in cfg.detections
        )
        self.layers = nn.ModuleList(modules.module_of(layer) for layer in cfg.layers)
        self._unread = _last_readers(cfg)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = {sections.IMAGES: images}
        for number, module in enumerate(self.layers):
            values[number] = module(*(values[source] for source in self.cfg.layers[number].sources))
            for source in self._unread[number]:
                del values[source]
        if self.detection_layers:
            return tuple(values[layer.section.number] for layer in self.cfg.detections)
        return values[len(self.layers) - 1]


def _path(number: int) -> str:
    return f"layers.{number}"


def _last_readers(cfg: Cfg) -> list[list[int]]:
    """For each layer the layers whose output nothing needs after it: that memory is free then."""
    last = {source: layer.section.number for layer in cfg.layers for source in layer.sources}
    unread: list[list[int]] = [[] for _ in cfg.layers]
    for source, reader in last.items():
        unread[reader].append(source)
    return unread


def build(cfg: Cfg) -> Darknet:
    """The network with random weights, in evaluation mode and without gradients."""
    return Darknet(cfg)


def strip_detection_layers(network: Darknet) -> tuple[nn.Conv2d, ...]:
    """Replace the convolution under every [yolo] and [region] section; the network then gives what they read.

    Returns:
        The convolutions, in the order of the outputs. Where the section says ``new_coords`` (``YoloScale.activated``),
        a logistic function belongs behind them.

    Raises:
        EdgetlError: one of them is more than a plain convolution (and, under ``new_coords``, a logistic function), or
            other layers read it too.
    """
    convolutions = []
    for detection in network.cfg.detections:
        (number,) = detection.sources
        layer = network.cfg.layers[number]
        assert isinstance(layer, sections.ConvolutionalSpec)
        _refuse_more_than_a_head(network.cfg, layer, detection)
        module = network.layers[number]
        assert isinstance(module, modules.Convolutional), "the endings are off already"
        convolutions.append(module.conv)
    for detection in network.cfg.detections:
        network.layers[detection.sources[0]] = nn.Identity()
    return tuple(convolutions)


def _refuse_more_than_a_head(cfg: Cfg, layer: sections.ConvolutionalSpec, detection: sections.DetectionSpec) -> None:
    activation = "logistic" if detection.scale.activated else "linear"
    readers = [other for other in cfg.layers if layer.section.number in other.sources]
    if layer.normalised:
        found = "batch normalisation"
    elif layer.activation != activation:
        found = f"{layer.activation} as activation"
    elif layer.groups > 1:
        found = f"{layer.groups} groups"
    elif len(readers) > 1:
        found = "other layers that read it"
    else:
        return
    raise layer.section.fault(
        f"has {found}: the layer under [{detection.section.name}] cannot be replaced, expected a convolution that is "
        f"{activation}, not normalised, of one group, and read by nothing else"
    )


def strip_classifier(network: Darknet) -> tuple[str, ...]:
    """Replace the last convolution of a classifier and all above it; the network then gives N x D features.

    They are what that convolution reads, averaged over positions.

    Returns:
        The path of the convolution, under which the weights that are not needed any more have their names.

    Raises:
        EdgetlError: the network is no classifier, or has no convolution.
    """
    cfg = network.cfg
    if network.detection_layers or not cfg.convolutions:
        raise EdgetlError(f"{cfg.path} is no classifier; expected a cfg of convolutions that ends in [softmax]")
    number = cfg.convolutions[-1].section.number
    del network.layers[number:]
    network.layers.append(modules.GlobalAveragePool())
    return (_path(number),)
