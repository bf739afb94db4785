"""Tuning of the layers above a cut, for each head: the linear probe first, then the layers and the probe together.

A head that has converged before the layers below it move keeps them from being bent to a random one (Kumar et al. 2022,
Fine-tuning can distort pretrained features). Validation chooses among all epochs, the probe itself included: tuning
cannot end with a greater validation loss than it began with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, fx

from edgetl.arrays import Float32Array, Int64Array
from edgetl.artifacts.bundle import ClassificationHead
from edgetl.config import FinetuneSettings
from edgetl.errors import EdgetlError
from edgetl.train.backbones import Backbone, fingerprint
from edgetl.train.branch import Branch, TuningPrecision, in_float, infer
from edgetl.train.cuts import split
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures
from edgetl.train.parallel import deterministic, device, each, threads


@dataclass(frozen=True)
class TunedBranch:
    """A head and its branch.

    ``weight`` (classes x D) and ``bias`` (classes) include the temperature. ``state`` holds the tensors that tuning
    changed, by their names in the trunk's state dict; where it is empty no epoch was better than the probe, and the
    branch is the trunk itself. ``val_features`` (N x D) are the head's features of the validation images.
    """

    head: ClassificationHead
    weight: Float32Array
    bias: Float32Array
    state: dict[str, Float32Array]
    val_features: Float32Array


def tune(
    backbone: Backbone,
    cut: str,
    start: Mapping[str, tuple[HeadPlan, Float32Array, Float32Array]],
    train: LabelledFeatures,
    val: LabelledFeatures,
    settings: FinetuneSettings,
    seed: int,
    watch: Callable[[float], object] = bool,
    precision: TuningPrecision = in_float,
) -> dict[str, TunedBranch]:
    """Tune the layers above a cut (not ``top``) for each head, all heads on the same batches.

    An epoch sees every image once, in one of its views drawn at random: it costs the same whatever the number of views.
    One seed on one machine gives the same bytes.

    Args:
        start: the heads by any key: plan, weight (classes x D) and bias (classes) on the untouched features. The
            result has the same keys.
        train: maps at the cut, N x C x H x W (or the images themselves), one array per view.
        val: the same of validation; the first view is used.
        watch: is called with each step's part of an epoch; they sum to ``settings.epochs`` at most.
        precision: how the layers are computed while they are tuned and judged; the result is in float all the same.

    Raises:
        EdgetlError: the network cannot be cut there.
    """
    upper = _upper(backbone, cut)
    branches = {key: Branch(upper, *one, train.labels, settings, precision) for key, one in start.items()}
    rng = np.random.default_rng(seed)
    with deterministic(), threads(len(branches)) as pool:
        each(branches.values(), pool, Branch.assess, 0, val.views[0], val.labels)
        for epoch in range(1, settings.epochs + 1):
            active = [branch for branch in branches.values() if branch.waited < settings.patience]
            for maps, rows in _batches(train.views, settings.batch_size, rng) if active else ():
                each(active, pool, Branch.step, maps, rows)
                watch(len(rows) / len(train.labels))
            each(active, pool, Branch.assess, epoch, val.views[0], val.labels)
    return {key: _tuned(branch, backbone, cut, settings) for key, branch in branches.items()}


def _upper(backbone: Backbone, cut: str) -> fx.GraphModule:
    _, upper = split(backbone, cut)
    assert isinstance(upper, fx.GraphModule), "nothing is above the top"
    return upper


def _batches(views: Sequence[Float32Array], size: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Int64Array]]:
    """Batches of all images in random order, each in a random view: maps, and the images' positions."""
    order = rng.permutation(len(views[0]))
    chosen = rng.integers(len(views), size=len(order))
    # View by view, as the views are files mapped into memory: one read of each for a batch.
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        maps = np.empty((len(rows), *views[0].shape[1:]), np.float32)
        for number, view in enumerate(views):
            here = chosen[rows] == number
            maps[here] = view[rows[here]]
        yield torch.from_numpy(maps), rows


def _tuned(branch: Branch, backbone: Backbone, cut: str, settings: FinetuneSettings) -> TunedBranch:
    probe, best, own = branch.probe, branch.best, backbone.trunk.state_dict()
    name = f"{branch.plan.name}@{cut}"
    head = ClassificationHead(
        name=name,
        classes=branch.plan.classes,
        activation=branch.plan.activation,
        cut=cut,
        features=f"{name}/features",
        l2=settings.weight_decay,
        temperature=best.score.temperature,
        val_loss=best.score.loss,
        val_accuracy=best.score.accuracy,
        probe_val_loss=probe.loss,
        probe_val_accuracy=probe.accuracy,
        epochs=best.epoch,
    )
    weight, bias = ((tensor / best.score.temperature).numpy() for tensor in (best.weight, best.bias))
    changed = {name: tensor.numpy() for name, tensor in best.state.items() if not torch.equal(tensor, own[name].cpu())}
    return TunedBranch(head, weight, bias, changed, best.features.numpy())


def with_state(backbone: Backbone, state: Mapping[str, Float32Array]) -> Backbone:
    """A copy of the backbone with tuned tensors in their place, or the backbone itself where there are none.

    Raises:
        EdgetlError: a tensor does not belong to the trunk, or has another shape.
    """
    if not state:
        return backbone
    trunk = copy.deepcopy(backbone.trunk)
    own = trunk.state_dict()
    for name, tensor in state.items():
        if name not in own or own[name].shape != tensor.shape:
            raise EdgetlError(
                f"the tuned tensor {name} {tensor.shape} does not fit {backbone.reference.name}; "
                "run edgetl finetune again"
            )
        own[name].copy_(torch.from_numpy(tensor))
    reference = backbone.reference.replaced(fingerprint=fingerprint(trunk))
    return replace(backbone, trunk=trunk, reference=reference)


def branch_features(
    backbone: Backbone,
    cut: str,
    state: Mapping[str, Float32Array],
    maps: Float32Array,
    precision: TuningPrecision = in_float,
) -> Float32Array:
    """The features (N x D) of maps at a cut, from the layers above it with their tuned tensors."""
    # A copy: the backbone stays on its device.
    upper = copy.deepcopy(_upper(with_state(backbone, state), cut)).to(device())
    features: Float32Array = infer(upper, maps, precision(upper)).numpy()
    return features
