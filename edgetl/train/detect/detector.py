"""Backbones of detectors: frozen trunks that end in several maps, with the pretrained endings where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import fx, nn

from edgetl import config
from edgetl.artifacts.bundle import BackboneReference, Preprocessing
from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.data.class_names import read_names
from edgetl.errors import EdgetlError
from edgetl.train.backbones import (
    NO_SHIFT,
    UNIT,
    HeadlessNetwork,
    Trunk,
    fingerprint,
    load_darknet,
    load_headless,
)
from edgetl.train.darknet.network import strip_detection_layers
from edgetl.train.detect.decode_boxes import InputSize
from edgetl.train.trace import FlopCounter, Traced, named_parameters, needed, trace_trunk

GraphModule = fx.GraphModule
"""From images, or from what crosses a cut, to a tuple of tensors."""

_SIDE = 320
"""Pixels of the input of a network that does not say itself what it was made for."""

_LEVELS = 3
_FINEST_STRIDE = 6
"""Of a network's strides 8, 16 and 32, and of near ones where a convolution without padding takes pixels away."""

_ANCHORS = {1: 5, 2: 3, 3: 3}
"""Of a pyramid's head at each level, by the number of levels: as YOLOv2 and YOLOv3 have them."""

_SMALLEST_MAP = 2
_LOST_CELLS = 2


@dataclass(frozen=True)
class PretrainedHead:
    """The ending that a Darknet detector comes with: its convolutions, how they are read, and what they know."""

    convolutions: tuple[nn.Conv2d, ...]
    scales: tuple[YoloScale, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Detector:
    """A frozen trunk as a graph of steps; ``maps`` are the steps that heads read, in the order of their scales.

    ``shapes`` are those of the maps for one image (D x H x W). Without ``pretrained`` endings, heads are pyramids and
    their maps come the finest first.
    """

    traced: Traced
    maps: tuple[fx.Node, ...]
    shapes: tuple[tuple[int, int, int], ...]
    reference: BackboneReference
    preprocessing: Preprocessing
    pretrained: PretrainedHead | None

    @property
    def frame(self) -> InputSize:
        return InputSize(self.preprocessing.width, self.preprocessing.height)

    @property
    def anchors(self) -> tuple[int, ...]:
        """How many each scale has."""
        if self.pretrained is None:
            return (_ANCHORS[len(self.maps)],) * len(self.maps)
        return tuple(len(scale.anchors) for scale in self.pretrained.scales)

    def trunk(self) -> GraphModule:
        """N x 3 x H x W in [0, 1] to a tuple of maps."""
        return self.traced.between([self.traced.images], self.maps)


def load_detector(study: config.BackboneSettings, base_dir: Path, seed: int) -> Detector:
    """The backbone that a detection study names, with its weights, frozen.

    Raises:
        EdgetlError: unknown name, weights or labels that cannot be had or do not fit, a network that cannot take such
            images, or one without maps.
    """
    if study.name.startswith("darknet/"):
        return _darknet(study, base_dir)
    width, height = _size(study, (_SIDE, _SIDE))
    architecture = load_headless(study, base_dir, seed)
    traced = trace_trunk(Trunk(architecture), study.name)
    profile = _profile(traced, study.name, width, height)
    maps = _finest_first(traced, profile, (width, height))
    if not maps:
        raise EdgetlError(
            f"{study.name} has no maps that boxes could be read from at {width} x {height} pixels; choose a "
            "convolutional network, or a larger backbone.image_size"
        )
    return _detector(study, traced, maps, profile, architecture, (width, height), None)


def _darknet(study: config.BackboneSettings, base_dir: Path) -> Detector:
    path = base_dir / study.name.partition("/")[2]
    network = load_darknet(study, path, base_dir)
    if not network.detection_layers:
        raise EdgetlError(f"{path} is a classifier, it has no [yolo] or [region] section; give the cfg of a detector")
    size = (network.width, network.height)
    scales = tuple(ending.scale for ending in network.detection_layers)
    labels = _labels(study, base_dir, network.detection_layers[0].classes)
    pretrained = PretrainedHead(strip_detection_layers(network), scales, labels)
    architecture = HeadlessNetwork(network, (), NO_SHIFT, UNIT)
    traced = trace_trunk(Trunk(architecture), study.name)
    profile = _profile(traced, study.name, *size)
    output: fx.Node = next(iter(reversed(traced.graph.nodes)))
    maps = tuple(output.all_input_nodes)
    return _detector(study, traced, maps, profile, architecture, size, pretrained)


def _labels(study: config.BackboneSettings, base_dir: Path, classes: int) -> tuple[str, ...]:
    """What the pretrained ending knows, from the file of the study; nothing where it names none."""
    if study.labels is None or study.weights is None:
        return ()
    labels = read_names(base_dir / study.labels)
    if len(labels) != classes:
        raise EdgetlError(
            f"backbone.labels {study.labels} has {len(labels)} names, {study.name} has {classes} classes; give the "
            "names of that network"
        )
    return labels


def _size(study: config.BackboneSettings, default: tuple[int, int]) -> tuple[int, int]:
    size = study.image_size
    return default if size is None else size if isinstance(size, tuple) else (size, size)


def _profile(traced: Traced, name: str, width: int, height: int) -> FlopCounter:
    try:
        return FlopCounter(traced, (3, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EdgetlError(
            f"{name} cannot take images of {width} x {height}: {reason}; choose another backbone.image_size"
        ) from error


def _finest_first(traced: Traced, profile: FlopCounter, image: tuple[int, int]) -> tuple[fx.Node, ...]:
    """The deepest map at each of the three coarsest resolutions, as pyramids have it (Lin et al. 2017)."""
    deepest: dict[tuple[int, ...], fx.Node] = {}
    for step, shape in profile.shapes.items():
        if len(shape) == 3 and _lies_on(image, (shape[2], shape[1])) and _is_map(traced, step):
            deepest[shape[1:]] = step
    sizes = sorted(deepest, key=lambda size: -size[0] * size[1])
    return tuple(deepest[size] for size in sizes[-_LEVELS:])


def _lies_on(image: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a map of a width and a height can lie on an image, cell by cell.

    Wider ones than `_FINEST_STRIDE` says cost most and know least. Networks that keep channels last have none of the
    image's shape; convolutions without padding take away a cell or two.
    """
    (width, height), (across, down) = size, image
    is_alike = abs(height * across - width * down) <= _LOST_CELLS * max(image)
    return is_alike and min(size) >= _SMALLEST_MAP and width * _FINEST_STRIDE <= across


def _is_map(traced: Traced, step: fx.Node) -> bool:
    """Whether all that the features need of the images goes through a step, so that it is no branch of a block.

    A first layer alone has no features yet: that is how transformers cut an image into patches. And what is pooled to
    a size of its own, before layers that want that size, lies on no image.
    """
    below = needed(step, traced.images)
    layers = [one for one in below if named_parameters(traced.trunk, one)]
    pooled = step.op == "call_module" and isinstance(
        traced.trunk.get_submodule(str(step.target)), nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
    )
    return len(layers) > 1 and not pooled and traced.images not in needed(traced.features, step)


def _detector(
    study: config.BackboneSettings,
    traced: Traced,
    maps: Sequence[fx.Node],
    profile: FlopCounter,
    architecture: HeadlessNetwork,
    size: tuple[int, int],
    pretrained: PretrainedHead | None,
) -> Detector:
    shapes = tuple((shape[0], shape[1], shape[2]) for shape in (profile.shapes[step] for step in maps))
    trunk = traced.between([traced.images], maps)
    reference = BackboneReference(
        name=study.name,
        weights=study.weights,
        fingerprint=fingerprint(trunk),
        feature_dim=sum(shape[0] for shape in shapes),
        parameters=sum(parameter.numel() for parameter in trunk.parameters()),
        mean=architecture.mean,
        std=architecture.std,
    )
    preprocessing = Preprocessing(
        width=size[0], height=size[1], fit=study.fit or "letterbox", interpolation=architecture.interpolation
    )
    return Detector(traced, tuple(maps), shapes, reference, preprocessing, pretrained)
