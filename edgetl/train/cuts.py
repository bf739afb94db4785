"""Cuts of a network: at layers whose output is all that the rest of it needs, between blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, TOP
from edgetl.errors import EdgetlError, did_you_mean
from edgetl.train.backbones import Backbone
from edgetl.train.trace import FlopCounter, needed, trace

SWEEP = "sweep"
_SWEPT = 6
_EXAMPLES = 4  # names of layers in a message; a network can have a hundred
_BLOCK = 256


@dataclass(frozen=True)
class CutPoint:
    """A layer at whose output the network can be cut.

    ``name`` is its module path, ``shape`` that of its output for one image, ``depth`` the fraction of the trunk's FLOPs
    up to it. ``aliases`` are other paths of the same cut: with the same layers frozen.
    """

    name: str
    shape: tuple[int, ...]
    depth: float
    aliases: tuple[str, ...] = ()


def cut_points(backbone: Backbone) -> tuple[CutPoint, ...]:
    """All layer cuts, from the images upward. Of layers that freeze the same parameters the last one is listed.

    Not listed are the cuts that freeze nothing (``images``) or everything (``top``).

    Raises:
        EdgetlError: torch.fx cannot trace the network.
    """
    traced = trace(backbone)
    profile = FlopCounter(traced, backbone.preprocessing.shape)
    total = profile.flops(needed(traced.features, traced.images))
    cuts = (cut for cut in traced.cuts() if cut.step in profile.shapes)
    points = []
    for _, alike in groupby(cuts, key=lambda cut: cut.frozen):
        *others, last = alike
        name, *aliases = last.paths
        aliases += [path for other in others for path in other.paths]
        below = profile.flops(needed(last.step, traced.images))
        points.append(CutPoint(name, profile.shapes[last.step], below / total, tuple(aliases)))
    return tuple(points)


def choose_cuts(points: Sequence[CutPoint], requested: str | int | tuple[str, ...] | None) -> tuple[str, ...]:
    """The cuts that a study requests, from the images upward; ``top`` is always the last one.

    Args:
        requested: null for ``top`` alone; names of layers, ``images`` or ``top``, one or several; a number of layer
            cuts, spread evenly over depth; or ``sweep``: six of them, or all where there are fewer.

    Raises:
        EdgetlError: a name is no cut of this network, or there are fewer layer cuts than requested.
    """
    if requested is None:
        return (TOP,)
    if requested == SWEEP:
        requested = max(1, min(_SWEPT, len(points)))
    if isinstance(requested, int):
        if requested > len(points):
            raise EdgetlError(
                f"backbone.cut asks for {requested} layer cuts, this network can be cut at {len(points)} layers; "
                "ask for no more, or leave cut out"
            )
        # `images` is chosen only by name: nothing is shared below it, so it costs most to train and to run.
        left = list(points)
        for position in range(1, requested + 1):
            left.remove(min(left, key=lambda point: abs(point.depth - position / (requested + 1))))
        return (*(point.name for point in points if point not in left), TOP)
    named = {_known(points, name) for name in ((requested,) if isinstance(requested, str) else requested)}
    return (*(name for name in (IMAGES, *(point.name for point in points)) if name in named), TOP)


def split(backbone: Backbone, cut: str) -> tuple[nn.Module, nn.Module]:
    """Split a backbone's network into the parts below and above a cut; they share the trunk's tensors.

    The lower part takes N x 3 x S x S in [0, 1] and holds the normalisation; the upper one gives N x D features.
    At ``images`` the lower part does nothing, at ``top`` the upper one.

    Raises:
        EdgetlError: torch.fx cannot trace the network, or it cannot be cut there.
    """
    if cut == TOP:
        return backbone.trunk, nn.Identity()
    traced = trace(backbone)
    if cut == IMAGES:
        return nn.Identity(), traced.part(traced.images, traced.features)
    step = next((found.step for found in traced.cuts() if cut in found.paths), None)
    if step is None:
        raise EdgetlError(f"{backbone.reference.name} cannot be cut at {cut!r}; choose one of its cut points")
    return traced.part(traced.images, step), traced.part(step, traced.features)


def pooled(lower: nn.Module) -> nn.Module:
    """A truncated network: the part below a cut, with its output averaged over positions to N x C."""
    return nn.Sequential(lower, _Pool()).eval()


def pool(maps: Float32Array) -> Float32Array:
    """Maps averaged over positions as `pooled` does it: N x C."""
    with torch.inference_mode():
        blocks = [_Pool()(torch.from_numpy(maps[row : row + _BLOCK])) for row in range(0, len(maps), _BLOCK)]
    result: Float32Array = torch.cat(blocks).numpy()
    return result


class _Pool(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        # N x C x H x W, or N x H x W x C (Swin), or tokens, N x T x C. Images are square, so H = W tells them apart.
        if maps.ndim == 4 and maps.shape[2] == maps.shape[3]:
            return nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1)
        return maps.flatten(1, -2).mean(dim=1) if maps.ndim > 2 else maps


def _known(points: Sequence[CutPoint], name: str) -> str:
    canonical = {TOP: TOP, IMAGES: IMAGES}
    for point in points:
        canonical |= dict.fromkeys((point.name, *point.aliases), point.name)
    if name not in canonical:
        names = [point.name for point in points]
        shown = [*names[:_EXAMPLES], "…", names[-1]] if len(names) > _EXAMPLES + 1 else names
        raise EdgetlError(
            f"backbone.cut names {name!r}, where the network cannot be cut{did_you_mean(name, canonical)}; "
            f"it can be at {', '.join([*shown, IMAGES, TOP])}"
        )
    return canonical[name]
