"""One head's own copy of the layers above a cut, while it is tuned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgetl.arrays import Float32Array, Int64Array
from edgetl.config import FinetuneSettings
from edgetl.train.linear_heads import HeadPlan, HeadScore, calibrate, logits_of, loss
from edgetl.train.parallel import device, learning_rate_factor
from edgetl.train.trace import named_parameters

_ROWS = 64

ForwardContext = Callable[[], AbstractContextManager[object]]
"""Makes the context to enter for each forward pass of some layers."""

TuningPrecision = Callable[[nn.Module], ForwardContext]
"""Makes the context in which layers are computed, from the layers as they are now."""


def in_float(layers: nn.Module) -> ForwardContext:
    """The precision in which PyTorch computes layers by itself."""
    del layers
    return nullcontext


@dataclass(frozen=True)
class Checkpoint:
    """A branch after some epochs: the score of its head on validation, the head, and the layers below it.

    ``weight`` (classes x D) and ``bias`` (classes) do not include the temperature; ``state`` holds the layers'
    parameters by name; ``features`` (N x D) are those of the validation images.
    """

    epoch: int
    score: HeadScore
    weight: Tensor
    bias: Tensor
    state: dict[str, Tensor]
    features: Tensor


class Branch:
    """Layers above a cut and the linear head on them, tuned together.

    Batch normalisation stays in evaluation mode, its statistics frozen: exported graphs fold them into convolutions,
    and a statistic that moved would part layers that are meant to be shared. Its scale and shift are trained like other
    parameters. Dropout is off too; validation tells when to stop.
    """

    probe: HeadScore
    """The score of the head before the layers were tuned: epoch 0."""
    best: Checkpoint
    waited = 0
    """Epochs since the loss last fell below that of all epochs before. The probe does not count: tuning often has to
    climb before it gets lower than it began."""

    def __init__(
        self,
        upper: fx.GraphModule,
        plan: HeadPlan,
        weight: Float32Array,
        bias: Float32Array,
        labels: Sequence[str],
        settings: FinetuneSettings,
        precision: TuningPrecision = in_float,
    ) -> None:
        """``upper`` is copied; ``weight`` and ``bias`` are the probe, ``labels`` those of the training images."""
        self.plan = plan
        self._precision = precision
        self._computing: ForwardContext = nullcontext
        self._lowest = math.inf
        self._device = device()
        self._truth = plan.targets(labels).to(self._device)
        self._upper = copy.deepcopy(upper).requires_grad_(True).to(self._device)
        self._linear = nn.Linear(weight.shape[1], weight.shape[0], device=self._device)
        self._linear.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        self._optimizer = torch.optim.AdamW(_parameter_groups(self._upper, self._linear, settings), fused=True)
        steps = settings.epochs * math.ceil(len(labels) / settings.batch_size)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_factor((step + 0.5) / steps)
        )

    def step(self, maps: Tensor, rows: Int64Array) -> None:
        """Learn from a batch: maps at the cut, and the positions of their training images."""
        self._optimizer.zero_grad()
        # A copy: layers that work in place would spoil the batch for the next branch.
        with self._computing():
            features = self._upper(maps.to(self._device, copy=True))
        error: Tensor = loss(self.plan.activation, self._linear(features), self._truth[torch.from_numpy(rows)])
        error.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def assess(self, epoch: int, maps: Float32Array, labels: Sequence[str]) -> None:
        """Score the branch on validation after an epoch (0: the probe), and keep it if it is the best."""
        self._computing = self._precision(self._upper)
        features = infer(self._upper, maps, self._computing)
        weight, bias = (tensor.detach().cpu().clone() for tensor in (self._linear.weight, self._linear.bias))
        score = calibrate(self.plan.activation, logits_of((weight, bias), features), self.plan.targets(labels))
        if epoch == 0:
            self.probe = score
        else:
            self.waited = 0 if score.loss < self._lowest else self.waited + 1
            self._lowest = min(self._lowest, score.loss)
        if epoch == 0 or score.loss < self.best.score.loss:
            state = {name: tensor.detach().cpu().clone() for name, tensor in self._upper.named_parameters()}
            self.best = Checkpoint(epoch, score, weight, bias, state, features)


def infer(upper: nn.Module, maps: Float32Array, computing: ForwardContext = nullcontext) -> Tensor:
    """The features (N x D) of maps at a cut, computed a few at a time."""
    where = next(upper.parameters()).device
    with torch.no_grad():
        # Copies: layers that work in place would write to the cached maps.
        parts = (np.array(maps[first : first + _ROWS]) for first in range(0, len(maps), _ROWS))
        features = []
        for part in parts:
            with computing():
                features.append(upper(torch.from_numpy(part).to(where)).cpu())
        return torch.cat(features)


def _parameter_groups(upper: fx.GraphModule, head: nn.Module, settings: FinetuneSettings) -> list[dict[str, Any]]:
    """The head at the full learning rate, each block below it at ``layer_decay`` times that of the one above.

    Early layers are general and change least (Howard & Ruder 2018, Universal language model fine-tuning).
    """
    blocks: list[list[nn.Parameter]] = []
    for step in upper.graph.nodes:
        known = {id(parameter) for block in blocks for parameter in block}
        block = [parameter for _, parameter in named_parameters(upper, step) if id(parameter) not in known]
        blocks += [block] if block else []
    groups = []
    for distance, block in enumerate([list(head.parameters()), *reversed(blocks)]):
        rate = settings.learning_rate * settings.layer_decay**distance
        matrices, vectors = ([one for one in block if (one.ndim > 1) is many] for many in (True, False))
        groups.append({"params": matrices, "lr": rate, "weight_decay": settings.weight_decay})
        # Biases and normalisations are not decayed: towards zero they would switch channels off.
        groups.append({"params": vectors, "lr": rate, "weight_decay": 0.0})
    return groups
