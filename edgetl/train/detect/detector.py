"""Backbones of detectors: frozen trunks that end in several maps, with pretrained detection heads if there are any."""

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
from edgetl.train.backbones import NO_SHIFT, UNIT, HeadlessNetwork, Trunk, fingerprint, load_darknet, load_headless
from edgetl.train.darknet.network import strip_detection_layers
from edgetl.train.detect.decode_boxes import InputSize
from edgetl.train.trace import FlopCounter, Traced, named_parameters, needed, trace_trunk

GraphModule = fx.GraphModule
"""A part of a trunk: from images, or from the tensors that cross a cut, to a tuple of tensors."""

# Pixels of the input's sides where the network does not state for what size it was made.
_SIDE = 320
# A pyramid reads maps of strides 8, 16 and 32. The limit is lower than 8: convolutions without padding take pixels
# away, which makes strides a little odd. Wider maps cost most and know least.
_LEVELS = 3
_FINEST_STRIDE = 6
# Anchors at each level of a pyramid, by the number of levels: as YOLOv2 and YOLOv3 have them.
_ANCHORS = {1: 5, 2: 3, 3: 3}
_SMALLEST_MAP = 2
_LOST_CELLS = 2


@dataclass(frozen=True)
class PretrainedHead:
    """The detection head that a Darknet detector comes with: its convolutions, how they are read, and its labels."""

    convolutions: tuple[nn.Conv2d, ...]
    scales: tuple[YoloScale, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Detector:
    """A frozen trunk as a graph of steps; ``maps`` are the steps that heads read, in the order of their scales.

    ``shapes`` are those of the maps for one image (D x H x W). Without ``pretrained`` heads are pyramids, and maps come
    the finest first.
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
        """The number of anchors of each scale."""
        if self.pretrained is None:
            return (_ANCHORS[len(self.maps)],) * len(self.maps)
        return tuple(len(scale.anchors) for scale in self.pretrained.scales)

    def trunk(self) -> GraphModule:
        """The network from N x 3 x H x W in [0, 1] to a tuple of maps."""
        return self.traced.between([self.traced.images], self.maps)


def load_detector(study: config.BackboneSettings, base_dir: Path, seed: int) -> Detector:
    """Load the backbone that a detection study names, with its weights, frozen.

    Raises:
        EdgetlError: unknown name, weights or labels that cannot be had or do not fit, a network that cannot take such
            images, or one without maps.
    """
    if study.name.startswith("darknet/"):
        return _darknet(study, base_dir)
    size = study.image_size or _SIDE
    width, height = size if isinstance(size, tuple) else (size, size)
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
    scales, classes = tuple(layer.scale for layer in network.detection_layers), network.detection_layers[0].classes
    # Random weights know no labels, whatever names the study gives.
    named = study.labels is not None and study.weights is not None
    labels = read_names(base_dir / str(study.labels)) if named else ()
    if named and len(labels) != classes:
        raise EdgetlError(
            f"backbone.labels {study.labels} has {len(labels)} names, {study.name} has {classes} classes; give the "
            "names of that network"
        )
    pretrained = PretrainedHead(strip_detection_layers(network), scales, labels)
    architecture = HeadlessNetwork(network, (), NO_SHIFT, UNIT)
    traced = trace_trunk(Trunk(architecture), study.name)
    profile = _profile(traced, study.name, *size)
    output: fx.Node = next(iter(reversed(traced.graph.nodes)))
    return _detector(study, traced, output.all_input_nodes, profile, architecture, size, pretrained)


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
    across, down = image
    deepest: dict[tuple[int, ...], fx.Node] = {}
    for step, shape in profile.shapes.items():
        if len(shape) != 3 or min(shape[1:]) < _SMALLEST_MAP or shape[2] * _FINEST_STRIDE > across:
            continue
        # A map has the image's shape but for a cell or two, which convolutions without padding take away; tensors that
        # keep channels last fail here.
        alike = abs(shape[1] * across - shape[2] * down) <= _LOST_CELLS * max(image)
        if alike and _is_map(traced, step):
            deepest[shape[1:]] = step
    sizes = sorted(deepest, key=lambda size: -size[0] * size[1])
    return tuple(deepest[size] for size in sizes[-_LEVELS:])


def _is_map(traced: Traced, step: fx.Node) -> bool:
    """Whether all that the features need of the images goes through a step, so that it is no branch of a block."""
    module = traced.trunk.get_submodule(str(step.target)) if step.op == "call_module" else None
    # What is pooled to a fixed size, for layers that expect that size, does not lie on the image any more.
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return False
    # One layer alone is no map yet: transformers cut an image into patches with one.
    layers = [one for one in needed(step, traced.images) if named_parameters(traced.trunk, one)]
    return len(layers) > 1 and traced.images not in needed(traced.features, step)


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
