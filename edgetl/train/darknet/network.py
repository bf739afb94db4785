"""A Darknet network as a PyTorch module, whole or without its detection layers or classifier."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.errors import EdgetlError
from edgetl.train.darknet import modules, sections
from edgetl.train.darknet.cfg import Cfg


@dataclass(frozen=True)
class DetectionLayer:
    """How a [yolo] or [region] section reads the output of the module at ``path``."""

    path: str
    classes: int
    scale: YoloScale


class Darknet(nn.Module):
    """A Darknet network: N x 3 x H x W images, RGB in [0, 1], to raw boxes or class scores.

    A detector gives the raw output of the layer before each [yolo] and [region] section, in their order, each
    N x A * (5 + C) x H x W; a classifier gives N x C scores that add up to one. After `strip_detection_layers` or
    `strip_classifier` it gives what those layers read.

    Attributes:
        detection_layers: how each output of a detector is read.
        layers: at ``layers.N`` the module that computes layer N, by Darknet's count.
    """

    def __init__(self, cfg: Cfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.width, self.height = cfg.width, cfg.height
        self.detection_layers = tuple(
            DetectionLayer(f"layers.{layer.sources[0]}", layer.classes, layer.scale) for layer in cfg.detections
        )
        self.layers = nn.ModuleList(modules.module_of(layer) for layer in cfg.layers)
        # For each layer the outputs that it is the last to read: their memory is free after it.
        last = {source: layer.section.number for layer in cfg.layers for source in layer.sources}
        self._unread: list[list[int]] = [[] for _ in cfg.layers]
        for source, reader in last.items():
            self._unread[reader].append(source)
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


def build(cfg: Cfg) -> Darknet:
    """The network with random weights, in evaluation mode and without gradients."""
    return Darknet(cfg)


def strip_detection_layers(network: Darknet) -> tuple[nn.Conv2d, ...]:
    """Take off the convolution before every [yolo] and [region] section; the network then gives what they read.

    Returns:
        The convolutions, in the order of the outputs. With ``new_coords`` (``YoloScale.activated``) a logistic function
        follows each.

    Raises:
        EdgetlError: one of them is more than a plain convolution (and, with ``new_coords``, a logistic function), or
            other layers read it too.
    """
    convolutions = []
    for detection in network.cfg.detections:
        (number,) = detection.sources
        layer = network.cfg.layers[number]
        assert isinstance(layer, sections.ConvolutionalSpec)
        _refuse_more_than_a_head(network.cfg, layer, detection)
        module = network.layers[number]
        assert isinstance(module, modules.Convolutional), "the detection layers are off already"
        convolutions.append(module.conv)
    # Only when all have passed: a network that is refused stays whole.
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
    """Take off the last convolution of a classifier and all above it; the network then gives N x D features.

    The features are what that convolution reads, averaged over positions.

    Returns:
        The path of the convolution: the prefix of the weights that are not needed any more.

    Raises:
        EdgetlError: the network is no classifier, or has no convolution.
    """
    cfg = network.cfg
    if network.detection_layers or not cfg.convolutions:
        raise EdgetlError(f"{cfg.path} is no classifier; expected a cfg of convolutions that ends in [softmax]")
    number = cfg.convolutions[-1].section.number
    del network.layers[number:]
    network.layers.append(modules.GlobalAveragePool())
    return (f"layers.{number}",)
