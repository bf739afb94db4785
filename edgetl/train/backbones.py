"""Pretrained backbones as frozen trunks that take RGB in [0, 1] and give pooled features."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgetl import config
from edgetl.artifacts.bundle import BackboneReference, Preprocessing
from edgetl.errors import EdgetlError
from edgetl.train import nano
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import Darknet, build, strip_classifier
from edgetl.train.darknet.weights import read_weights as read_darknet_weights
from edgetl.train.load_weights import load_into, read_weights

RGB = tuple[float, float, float]
IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)
NO_SHIFT: RGB = (0.0, 0.0, 0.0)
UNIT: RGB = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class HeadlessNetwork:
    """A library's network without its head; ``head`` are the name prefixes of the layers that were taken off."""

    module: nn.Module
    head: tuple[str, ...]
    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    image_size: int = 224


class Trunk(nn.Module):
    """The frozen backbone with its normalisation inside: N x 3 x S x S in [0, 1] to N x D."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: HeadlessNetwork) -> None:
        super().__init__()
        self.backbone = architecture.module
        # Darknet's networks take RGB in [0, 1] as it is: no arithmetic then goes into their graphs.
        self._normalises = any(architecture.mean) or set(architecture.std) != {1.0}
        # Buffers, so that the fingerprint covers them: the same weights behind another normalisation are another trunk.
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(architecture.std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Trunk:
        """Stay in evaluation mode."""
        del mode  # whoever calls train() on a parent: batch-norm statistics are frozen too
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone((images - self.mean) / self.std if self._normalises else images)
        return features


@dataclass(frozen=True)
class Backbone:
    """A trunk with its record in the bundle and its input contract."""

    trunk: Trunk
    reference: BackboneReference
    preprocessing: Preprocessing


def load_backbone(study: config.BackboneSettings, base_dir: Path, seed: int) -> Backbone:
    """The backbone that a study names, with its weights, frozen.

    Raises:
        EdgetlError: unknown name, weights that are missing or do not fit, or a network without pooled features.
    """
    architecture = load_headless(study, base_dir, seed)
    trunk = Trunk(architecture)
    size = study.image_size or architecture.image_size
    assert isinstance(size, int), "the study file allows width and height for detection alone"
    reference = BackboneReference(
        name=study.name,
        weights=study.weights,
        fingerprint=fingerprint(trunk),
        feature_dim=_feature_dim(trunk, study.name, size),
        parameters=sum(parameter.numel() for parameter in trunk.parameters()),
        mean=architecture.mean,
        std=architecture.std,
    )
    preprocessing = Preprocessing.square(size, architecture.interpolation)
    return Backbone(trunk, reference, preprocessing)


def load_headless(study: config.BackboneSettings, base_dir: Path, seed: int) -> HeadlessNetwork:
    """The network that a study names, with its weights and without its head.

    Raises:
        EdgetlError: unknown name, or weights that are missing or do not fit.
    """
    library, _, name = study.name.partition("/")
    torch.manual_seed(seed)  # only `weights: null` draws from it
    if library == "darknet":
        return _darknet(study, base_dir / name, base_dir)
    pretrained = study.weights == "default"
    if library == "edgetl":
        module = nano.pretrained() if pretrained else nano.Nano()
        architecture = HeadlessNetwork(module, ("classifier",), nano.MEAN, nano.STD)
    else:
        architecture = _LIBRARIES[library](name, pretrained)
    if study.weights not in {None, "default"}:
        path = base_dir / str(study.weights)
        load_into(architecture.module, read_weights(path), architecture.head, study.name, str(path))
    return architecture


def fingerprint(trunk: nn.Module) -> str:
    """The sha256 over every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(trunk.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _feature_dim(trunk: Trunk, name: str, size: int) -> int:
    try:
        with torch.inference_mode():
            features = trunk(torch.zeros(2, 3, size, size))  # two: what squeezes would drop a batch of one
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EdgetlError(
            f"{name} cannot take images of {size} x {size}: {reason}; choose another backbone.image_size"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise EdgetlError(f"{name} has no pooled features; choose an image classification network")
    return int(features.shape[1])


def _darknet(study: config.BackboneSettings, path: Path, base_dir: Path) -> HeadlessNetwork:
    network = load_darknet(study, path, base_dir)
    if network.detection_layers:
        raise EdgetlError(f"{path} is a detector; say task: detect, or give the cfg of a classifier ([softmax])")
    size = network.width
    if network.height != size:
        raise EdgetlError(f"{path} takes images of {size} x {network.height}; give one side as backbone.image_size")
    return HeadlessNetwork(network, strip_classifier(network), NO_SHIFT, UNIT, image_size=size)


def load_darknet(study: config.BackboneSettings, path: Path, base_dir: Path) -> Darknet:
    """The whole network of a .cfg file, for the study's image size, with its weights.

    Raises:
        EdgetlError: the .cfg or .weights file is missing or damaged, or one does not belong to the other.
    """
    cfg = read_cfg(path, study.image_size)
    network = build(cfg)
    if study.weights is not None:
        weights = base_dir / study.weights
        load_into(network, read_darknet_weights(weights, cfg), (), study.name, str(weights))
    return network


def _timm(name: str, default_weights: bool) -> HeadlessNetwork:
    # Imported here: timm takes long to import, and most studies do without it.
    import timm
    from timm import data

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    module: Any = _built(
        lambda: timm.create_model(name, pretrained=default_weights, num_classes=0), f"timm/{name}", default_weights
    )
    # timm has types, but hands this function on without naming it.
    settings = data.resolve_data_config({}, model=module)  # type: ignore[attr-defined, no-untyped-call]
    classifier = module.pretrained_cfg.get("classifier") or ()
    head = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic" if settings["interpolation"] == "bicubic" else "bilinear"
    return HeadlessNetwork(module, head, tuple(settings["mean"]), tuple(settings["std"]), interpolation)


def _torchvision(name: str, default_weights: bool) -> HeadlessNetwork:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    weights = "DEFAULT" if default_weights else None
    options: dict[str, Any] = {"progress": sys.stderr.isatty()}
    if name in {"googlenet", "inception_v3"}:
        # These rescale their input for their published weights only where torchvision itself fetches them; and they
        # warn of their slow initialisation.
        options |= {"transform_input": True, "init_weights": False}
    module = _built(lambda: models.get_model(name, weights=weights, **options), f"torchvision/{name}", default_weights)
    return HeadlessNetwork(module, _take_head_off(module, name))


def _take_head_off(module: nn.Module, name: str) -> tuple[str, ...]:
    """Take a network's classifier off, so that pooled features are left; return the prefixes of the removed layers."""
    classifier = getattr(module, "classifier", None)
    if isinstance(classifier, nn.Sequential) and isinstance(classifier[-1], nn.AdaptiveAvgPool2d):
        module.classifier = nn.AdaptiveAvgPool2d(1)  # SqueezeNet classifies by a convolution before the pooling
        return ("classifier",)
    # Auxiliary classifiers (Inception, GoogLeNet) help training only and are not in the evaluated path.
    auxiliary = tuple(part for part in ("AuxLogits", "aux1", "aux2") if hasattr(module, part))
    for part in auxiliary:
        setattr(module, part, None)
    linear = [layer for layer, child in module.named_modules() if isinstance(child, nn.Linear)]
    if not linear:
        raise EdgetlError(
            f"torchvision/{name} has no linear classifier to take off; choose an image classification network"
        )
    parent, _, child = linear[-1].rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())
    return (linear[-1], *auxiliary)


def _built(build: Callable[[], nn.Module], name: str, default_weights: bool) -> nn.Module:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch.hub announces a download on stdout
            return build()
    except Exception as error:  # hubs raise urllib, requests, huggingface and OS errors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if not default_weights:
            raise EdgetlError(f"backbone {name} cannot be built ({reason}); choose another backbone.name") from error
        raise EdgetlError(
            f"the default weights of {name} could not be fetched ({reason[:160]}); with no network, download them "
            "elsewhere and give backbone.weights the file, or null for random weights"
        ) from error


def _unknown(library: str, name: str, known: list[str]) -> EdgetlError:
    close = difflib.get_close_matches(name, known, n=3)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return EdgetlError(f"backbone {library}/{name} is unknown to the installed {library}{hint}")


_LIBRARIES: dict[str, Callable[[str, bool], HeadlessNetwork]] = {"timm": _timm, "torchvision": _torchvision}
