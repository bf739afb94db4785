"""Joint training of a head and the last layers of its trunk, after the head was trained on them frozen."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgetl.arrays import Float32Array
from edgetl.train.detect.detector import Detector
from edgetl.train.detect.yolo_heads import YoloHead
from edgetl.train.trace import named_parameters, needed


@dataclass(frozen=True)
class SplitTrunk:
    """A trunk in two parts. ``cut`` is the last layer that stays frozen; several tensors may cross the cut.

    ``below`` takes N x 3 x H x W to a tuple of tensors (``shapes`` for one image), ``above`` takes those to the
    trunk's maps.
    """

    cut: str
    below: fx.GraphModule
    above: fx.GraphModule
    shapes: tuple[tuple[int, ...], ...]


def split_trunk(detector: Detector, share: float) -> SplitTrunk:
    """Split a trunk so that a fraction ``share`` of its layers is above the cut, at least one above and one below."""
    traced = detector.traced
    steps = set().union(*(needed(step, traced.images) for step in detector.maps))
    order = [step for step in traced.graph.nodes if step in steps]
    # Modules with weights. Batch normalisation is none of its own: exported graphs fold it into a convolution.
    layers = [
        step
        for step in order
        if step.op == "call_module"
        and named_parameters(traced.trunk, step)
        and not isinstance(traced.trunk.get_submodule(str(step.target)), _BatchNorm)
    ]
    unfrozen = layers[-min(max(1, math.ceil(share * len(layers))), len(layers) - 1) :]
    moved: set[fx.Node] = set()
    for step in order:
        if step in unfrozen or moved.intersection(step.all_input_nodes):
            moved.add(step)
    crossing = dict.fromkeys(
        source for step in order if step in moved for source in step.all_input_nodes if source not in moved
    )
    crossing |= dict.fromkeys(step for step in detector.maps if step not in moved)
    values = [step for step in crossing if step.op != "get_attr"]  # parameters are in both parts, they need not cross
    below, above = traced.between([traced.images], values), traced.between(values, detector.maps)
    last = next(step for step in reversed(order) if step in layers and step not in moved)
    with torch.inference_mode():
        crossed = below(torch.zeros(1, *detector.preprocessing.shape))
    return SplitTrunk(traced.paths[last][0], below, above, tuple(tuple(value.shape[1:]) for value in crossed))


class Joint(nn.Module):
    """Layers above a cut and the head on them, as one head on the tensors that cross the cut.

    Batch normalisation stays frozen, its scale and shift too: exported graphs fold them into convolutions, and
    statistics of a few images would bend what the rest of the trunk expects (Ren et al. 2015 freeze them as well).
    """

    def __init__(self, above: fx.GraphModule, head: YoloHead) -> None:
        super().__init__()
        self.above, self.head = copy.deepcopy(above).requires_grad_(True), copy.deepcopy(head).requires_grad_(True)
        for module in self.above.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)
        self.eval()

    def forward(self, maps: Sequence[Tensor], first_level_raws: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
        # Copies: layers that work in place would spoil the batch for the next head.
        raws: tuple[Tensor, ...] = self.head(self.above(*(one.clone() for one in maps)), first_level_raws)
        return raws


class DetectorNetwork(nn.Module):
    """A network from images to raw outputs: the layers below a head, the head, and for a second level the first one."""

    def __init__(self, below: nn.Module, head: nn.Module, first: nn.Module | None = None) -> None:
        super().__init__()
        self.below, self.head, self.first = below, head, first
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.below(images)
        raws: tuple[Tensor, ...] = self.head(maps, () if self.first is None else self.first(maps))
        return raws


def raw_outputs(whole: nn.Module, images: Float32Array) -> tuple[Float32Array, ...]:
    """The raw outputs of a network for images (N x 3 x H x W in [0, 1]): the reference for its graph."""
    with torch.inference_mode():
        return tuple(raw.numpy() for raw in whole(torch.from_numpy(images)))


def tensors(heads: Mapping[str, nn.Module]) -> dict[str, Float32Array]:
    """The tensors of all heads, by ``HEAD/NAME``."""
    return {
        f"{name}/{key}": np.ascontiguousarray(value.detach().cpu().numpy())
        for name, head in heads.items()
        for key, value in head.state_dict().items()
    }
