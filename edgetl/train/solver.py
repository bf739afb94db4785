"""Many regularised linear classifiers on one feature matrix, fitted together.

Every head at every strength is a convex problem: mean cross-entropy + strength / 2 * |W|^2. All of them read the same
features, so one matrix product per iteration serves them all. Each has its own L-BFGS memory and step length
(Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 3.1), and leaves the set when it has converged.

What makes few iterations enough is the preconditioner. The Hessian of the softmax loss is at most 1/2 C (x) I, that
of the logistic loss 1/4 C (x) I, with C the covariance of the features (Boehning 1992, Multinomial logistic
regression algorithm). In the eigenbasis of C, scaled by (bound * eigenvalue + strength)^-1/2, every problem is well
conditioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Loss = Literal["softmax", "sigmoid"]

_HESSIAN_BOUND: dict[Loss, float] = {"softmax": 0.5, "sigmoid": 0.25}
_HISTORY = 8
_BLOCK_ROWS = 4096
_ARMIJO = 1e-4


@dataclass(frozen=True)
class Task:
    """One head's training problem.

    ``targets`` are N class positions; a sigmoid task has one binary problem per class, true for the target class.
    """

    targets: Tensor
    classes: int
    loss: Loss


@dataclass(frozen=True)
class Moments:
    """Mean (D) and eigendecomposition of the covariance (D; D x D, columns are vectors) of the features."""

    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    @property
    def mean_variance(self) -> float:
        return max(float(self.eigenvalues.mean()), 1e-12)


def moments(features: Sequence[Tensor]) -> Moments:
    """First and second moments over all views, in float64 sums over blocks.

    Products are taken about the mean: where features differ little from it, float32 leaves nothing of them otherwise.
    """
    dimension, rows = features[0].shape[1], sum(len(view) for view in features)
    blocks = [block for view in features for block in torch.split(view, _BLOCK_ROWS)]
    total = torch.zeros(dimension, dtype=torch.float64, device=features[0].device)
    for block in blocks:
        total += block.sum(dim=0, dtype=torch.float64)
    mean = (total / rows).float()
    square = torch.zeros(dimension, dimension, dtype=torch.float64, device=features[0].device)
    for block in blocks:
        centred = block - mean
        square += (centred.T @ centred).double()
    eigenvalues, eigenvectors = torch.linalg.eigh((square / rows).float())
    return Moments(mean, eigenvalues.clamp_min(0.0), eigenvectors)


@dataclass
class _Problem:
    """One task at one strength: columns of the joint weight matrix, and where its descent stands."""

    task: Task
    strength: float
    scale: Tensor  # (D + 1) x 1: preconditioned variables to weights in the eigenbasis; the last row is the bias
    point: Tensor
    value: float = float("inf")
    gradient: Tensor | None = None
    direction: Tensor | None = None
    slope: float = 0.0
    step: float = 1.0
    done: bool = False

    def __post_init__(self) -> None:
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []

    @property
    def trial(self) -> Tensor:
        return self.point if self.direction is None else self.point + self.step * self.direction


def fit(
    features: Sequence[Tensor],
    tasks: Sequence[Task],
    strengths: Sequence[float],
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 300,
) -> list[list[tuple[Tensor, Tensor]]]:
    """Fit every task at every strength.

    Args:
        features: one N x D matrix per view of the images, all with the same rows.
        tasks: what to fit.
        strengths: relative to the mean variance of the features, so that one grid suits every backbone.
        tolerance: a problem is done when half its squared preconditioned gradient is below this share of its loss.
        max_iterations: passes over the features.

    Returns:
        For each task and each strength, weight (classes x D) and bias (classes).
    """
    statistics = moments(features)
    grid = [[_problem(task, strength, statistics) for strength in strengths] for task in tasks]
    problems = [problem for row in grid for problem in row]
    for _ in range(max_iterations):
        active = [problem for problem in problems if not problem.done]
        if not active:
            break
        for problem, (value, gradient) in zip(active, _evaluate(features, active, statistics), strict=True):
            _advance(problem, value, gradient, tolerance)
    return [[_uncentred(*_weights(problem, problem.point, statistics), statistics) for problem in row] for row in grid]


def _problem(task: Task, relative_strength: float, statistics: Moments) -> _Problem:
    strength = relative_strength * statistics.mean_variance
    bound = _HESSIAN_BOUND[task.loss]
    curvature = torch.cat([bound * statistics.eigenvalues + strength, statistics.mean.new_tensor([bound])])
    scale = curvature.rsqrt()[:, None]
    return _Problem(task, strength, scale, torch.zeros(len(scale), task.classes, device=scale.device))


def _weights(problem: _Problem, point: Tensor, statistics: Moments) -> tuple[Tensor, Tensor]:
    """Weight and bias for features from which the mean is taken."""
    scaled = point * problem.scale
    return (statistics.eigenvectors @ scaled[:-1]).T, scaled[-1]


def _uncentred(weight: Tensor, bias: Tensor, statistics: Moments) -> tuple[Tensor, Tensor]:
    return weight, bias - weight @ statistics.mean


def _evaluate(
    features: Sequence[Tensor], problems: Sequence[_Problem], statistics: Moments
) -> list[tuple[float, Tensor]]:
    """Objective and preconditioned gradient of every problem at its trial point, in one pass over the features."""
    pairs = [_weights(problem, problem.trial, statistics) for problem in problems]
    weight, bias = torch.cat([pair[0] for pair in pairs]).T.contiguous(), torch.cat([pair[1] for pair in pairs])
    rows = sum(len(view) for view in features)
    product, residual_sum = torch.zeros_like(weight), torch.zeros_like(bias)
    losses = torch.zeros(len(problems), dtype=torch.float64, device=weight.device)
    for view in features:
        for start in range(0, len(view), _BLOCK_ROWS):
            block = view[start : start + _BLOCK_ROWS] - statistics.mean
            logits = torch.addmm(bias, block, weight)
            losses += _residuals_in_place(logits, problems, start)
            product.addmm_(block.T, logits)
            residual_sum += logits.sum(dim=0)
    rotated = torch.cat([statistics.eigenvectors.T @ product, residual_sum[None]]) / rows
    parts = torch.split(rotated, [problem.task.classes for problem in problems], dim=1)
    return [
        _with_penalty(problem, float(loss) / rows, part)
        for problem, loss, part in zip(problems, losses.tolist(), parts, strict=True)
    ]


def _with_penalty(problem: _Problem, loss: float, gradient: Tensor) -> tuple[float, Tensor]:
    scaled = problem.trial * problem.scale
    scaled[-1] = 0.0  # the bias is free
    value = loss + 0.5 * problem.strength * float(scaled.square().sum())
    return value, (gradient + problem.strength * scaled) * problem.scale


def _residuals_in_place(logits: Tensor, problems: Sequence[_Problem], start: int) -> Tensor:
    """Turn the logits of a block into probability - truth; return the summed loss of every problem."""
    losses = []
    for problem, part in zip(problems, torch.split(logits, [p.task.classes for p in problems], dim=1), strict=True):
        truth = problem.task.targets[start : start + len(part), None]
        chosen = part.gather(1, truth)
        if problem.task.loss == "softmax":
            normaliser = part.logsumexp(dim=1, keepdim=True)
            losses.append((normaliser - chosen).sum(dtype=torch.float64))
            part.sub_(normaliser).exp_()
        else:
            losses.append(torch.nn.functional.softplus(part).sum(dtype=torch.float64) - chosen.sum(dtype=torch.float64))
            part.sigmoid_()
        part.scatter_add_(1, truth, torch.full_like(chosen, -1.0))
    return torch.stack(losses)


def _advance(problem: _Problem, value: float, gradient: Tensor, tolerance: float) -> None:
    """Take the trial point if it descends enough, else halve the step; then aim anew."""
    if problem.direction is not None and value > problem.value + _ARMIJO * problem.step * problem.slope:
        problem.step *= 0.5
        problem.done = problem.step < 1e-6  # float32 can tell no further descent
        return
    if problem.gradient is not None:
        _remember(problem, problem.trial - problem.point, gradient - problem.gradient)
        problem.point = problem.trial
    problem.value, problem.gradient, problem.step = value, gradient, 1.0
    problem.done = 0.5 * float(gradient.square().sum()) < tolerance * value
    problem.direction = -_inverse_hessian_times(problem, gradient)
    problem.slope = float((problem.direction * gradient).sum())


def _remember(problem: _Problem, step: Tensor, change: Tensor) -> None:
    if float((step * change).sum()) > 0.0:
        problem.steps = [*problem.steps[1 - _HISTORY :], step]
        problem.changes = [*problem.changes[1 - _HISTORY :], change]


def _inverse_hessian_times(problem: _Problem, gradient: Tensor) -> Tensor:
    """The two-loop recursion (Nocedal & Wright, algorithm 7.4), from the identity of the preconditioned space."""
    result, factors = gradient.clone(), []
    for step, change in zip(reversed(problem.steps), reversed(problem.changes), strict=True):
        inverse = 1.0 / float((change * step).sum())
        factor = inverse * float((step * result).sum())
        result -= factor * change
        factors.append((inverse, factor))
    if problem.steps:
        step, change = problem.steps[-1], problem.changes[-1]
        result *= float((step * change).sum()) / float(change.square().sum())
    for step, change, (inverse, factor) in zip(problem.steps, problem.changes, reversed(factors), strict=True):
        result += (factor - inverse * float((change * result).sum())) * step
    return result
