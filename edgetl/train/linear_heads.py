"""Linear heads of all deployments: fitted together on cached features, chosen and calibrated on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.optimize import minimize_scalar
from torch import Tensor

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Activation, ClassificationHead
from edgetl.config import COMBINED, DEPLOYMENTS, ONE_VS_REST, OTHER
from edgetl.errors import EdgetlError
from edgetl.train.solver import HeadProblem, Solution, design, fit

# Enough to tell the values of l2 apart by their validation loss; the chosen heads are fitted exactly.
_SEARCH_TOLERANCE = 1e-3


@dataclass(frozen=True)
class LabelledFeatures:
    """The cached features of a split: one array per view, N x D (maps at a cut: N x C x H x W), and N labels."""

    views: tuple[Float32Array, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class HeadPlan:
    """A head to be trained: its classes, and the function that makes probabilities of its outputs."""

    name: str
    classes: tuple[str, ...]
    activation: Activation

    def targets(self, labels: Sequence[str]) -> Tensor:
        """The class position of each label; a label that is not one of the head's is ``other``."""
        position = {label: index for index, label in enumerate(self.classes)}
        return torch.tensor([position[label] if label in position else position[OTHER] for label in labels])


def plan_heads(deployments: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[HeadPlan, ...]:
    """The distinct heads that the deployments need; ``specialised`` and ``shared`` use the same ones."""
    every_label = tuple(label for labels in groups.values() for label in labels)
    plans = {
        COMBINED: HeadPlan(COMBINED, every_label, "softmax"),
        ONE_VS_REST: HeadPlan(ONE_VS_REST, every_label, "sigmoid"),
        **{group: HeadPlan(group, (*labels, OTHER), "softmax") for group, labels in groups.items()},
    }
    needed = [role for name in deployments for role in DEPLOYMENTS[name].roles(groups)]
    return tuple(plans[role] for role in dict.fromkeys(needed))


def train_heads(
    plans: Sequence[HeadPlan], train: LabelledFeatures, val: LabelledFeatures, l2: Sequence[float]
) -> tuple[tuple[ClassificationHead, ...], dict[str, Float32Array]]:
    """Fit heads with each ``l2`` together, loosely; then with the one that validation chose for each head, exactly.

    The validation loss of the calibrated head chooses. Temperature scaling (Guo et al. 2017, On calibration of modern
    neural networks) makes the probabilities of different heads comparable; it is folded into the weights, so no graph
    has to know of it.

    Returns:
        The heads, and their tensors: ``NAME.weight`` (classes x D), ``NAME.bias`` (classes).
    """
    shared = design([torch.from_numpy(view) for view in train.views])
    tasks = [HeadProblem(plan.targets(train.labels), len(plan.classes), plan.activation) for plan in plans]
    tried = fit(shared, list(product(tasks, l2)), tolerance=_SEARCH_TOLERANCE)
    val_features = torch.from_numpy(val.views[0])
    truths = [plan.targets(val.labels) for plan in plans]
    losses = [
        calibrate(plan.activation, logits_of(tried[n * len(l2) + m], val_features), truth).loss
        for n, (plan, truth) in enumerate(zip(plans, truths, strict=True))
        for m in range(len(l2))
    ]
    grid = np.array(losses).reshape(len(plans), len(l2))
    best = grid.argmin(axis=1)
    chosen = [l2[position] for position in best]
    start = [tried[n * len(l2) + position] for n, position in enumerate(best)]
    fitted = fit(shared, list(zip(tasks, chosen, strict=True)), start=start)
    heads, tensors = [], {}
    for plan, strength, solution, truth in zip(plans, chosen, fitted, truths, strict=True):
        calibrated = calibrate(plan.activation, logits_of(solution, val_features), truth)
        heads.append(
            ClassificationHead(
                name=plan.name,
                classes=plan.classes,
                activation=plan.activation,
                l2=strength,
                temperature=calibrated.temperature,
                val_loss=calibrated.loss,
                val_accuracy=calibrated.accuracy,
            )
        )
        for part, tensor in zip(("weight", "bias"), solution, strict=True):
            # safetensors writes a transposed array's buffer as it lies in memory, without a warning.
            tensors[f"{plan.name}.{part}"] = np.ascontiguousarray((tensor / calibrated.temperature).numpy())
    return tuple(heads), tensors


@dataclass(frozen=True)
class HeadScore:
    """The loss and accuracy of a head with the temperature that has the least loss."""

    temperature: float
    loss: float
    accuracy: float


def logits_of(solution: Solution, features: Tensor) -> Tensor:
    """The logits (N x classes) of a fitted head on features (N x D)."""
    weight, bias = solution
    return torch.addmm(bias, features, weight.T)


def calibrate(activation: Activation, logits: Tensor, truth: Tensor) -> HeadScore:
    """The score of logits (N x classes) whose true classes (N positions) are known, at their best temperature."""
    # In logarithms, as temperatures are factors: from 1/20 to 20.
    best = minimize_scalar(
        lambda log_t: float(loss(activation, logits / float(np.exp(log_t)), truth)),
        bounds=(-3.0, 3.0),
        method="bounded",
    )
    temperature = float(np.exp(best.x))
    accuracy = float((logits.argmax(dim=1) == truth).float().mean())
    return HeadScore(temperature, float(loss(activation, logits / temperature, truth)), accuracy)


def loss(activation: Activation, logits: Tensor, truth: Tensor) -> Tensor:
    """The mean negative log likelihood; of a sigmoid head, summed over its binary problems."""
    if activation == "softmax":
        return torch.nn.functional.cross_entropy(logits, truth)
    targets = torch.nn.functional.one_hot(truth, logits.shape[1]).to(logits)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()


def read_tensors(path: Path) -> dict[str, Float32Array]:
    """The tensors of a bundle's safetensors file.

    Raises:
        EdgetlError: the file is missing or damaged.
    """
    try:
        tensors: dict[str, Float32Array] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EdgetlError(f"{path} cannot be read: {error}; run edgetl finetune again") from error
    return tensors
