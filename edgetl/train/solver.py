"""A solver of many regularised linear classifiers on one feature matrix.

Every head with every l2 is a convex problem: mean cross-entropy + l2 / 2 * |W|^2. All of them read the same
features, so one matrix product per iteration serves them all. Each has its own L-BFGS memory and step length
(Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 3.1), and leaves the set when it has converged.

What makes few iterations enough is the preconditioner. The Hessian of the softmax loss is at most 1/2 C (x) I, that
of the logistic loss 1/4 C (x) I, with C the covariance of the features (Boehning 1992, Multinomial logistic
regression algorithm). In the eigenbasis of C, scaled by (bound * eigenvalue + l2)^-1/2, every problem is well
conditioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

LossName = Literal["softmax", "sigmoid"]

Solution = tuple[Tensor, Tensor]
"""Weight (classes x D) and bias (classes)."""

_HESSIAN_BOUND: dict[LossName, float] = {"softmax": 0.5, "sigmoid": 0.25}
_HISTORY = 8
_BLOCK_ROWS = 2048  # logits of all problems for so many rows are in memory at once
_ARMIJO = 1e-4  # Nocedal & Wright's value for the sufficient decrease


@dataclass(frozen=True)
class HeadProblem:
    """The training problem of one head, for any l2.

    ``targets`` are N class positions; with a sigmoid there is one binary problem per class, true for the target class.
    """

    targets: Tensor
    classes: int
    loss: LossName


@dataclass(frozen=True)
class Design:
    """The features that all problems share, and the basis in which they are solved.

    ``views`` are N x D matrices with the same rows, one for each view of the images; ``mean`` (D) is over all of them,
    ``eigenvalues`` (D) and ``eigenvectors`` (D x D, in columns) are those of their covariance.
    """

    views: tuple[Tensor, ...]
    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor

    @property
    def mean_variance(self) -> float:
        return max(float(self.eigenvalues.mean()), 1e-12)

    @property
    def rows(self) -> int:
        return sum(len(view) for view in self.views)


def design(views: Sequence[Tensor]) -> Design:
    """The features with their mean and the eigenbasis of their covariance, from float64 sums over blocks."""
    dimension, rows = views[0].shape[1], sum(len(view) for view in views)
    blocks = [block for view in views for block in torch.split(view, _BLOCK_ROWS)]
    total = torch.zeros(dimension, dtype=torch.float64, device=views[0].device)
    for block in blocks:
        total += block.sum(dim=0, dtype=torch.float64)
    mean = (total / rows).float()
    square = torch.zeros(dimension, dimension, dtype=torch.float64, device=views[0].device)
    for block in blocks:
        # About the mean: where features differ little from it, float32 would leave nothing of the difference.
        centred = block - mean
        square += (centred.T @ centred).double()
    eigenvalues, eigenvectors = torch.linalg.eigh((square / rows).float())
    return Design(tuple(views), mean, eigenvalues.clamp_min(0.0), eigenvectors)


@dataclass
class _Problem:
    """One head with one l2: columns of the joint weight matrix, and the state of its descent."""

    task: HeadProblem
    l2: float
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
    shared: Design,
    problems: Sequence[tuple[HeadProblem, float]],
    *,
    start: Sequence[Solution] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 300,
) -> list[Solution]:
    """Solve many problems together.

    Args:
        problems: heads, each with its l2 as a multiple of the mean variance of the features, so that one grid suits
            every backbone.
        start: the solution to set out from for each problem; zero if left out.
        tolerance: a problem is done when half its squared preconditioned gradient is below this fraction of its loss.
        max_iterations: passes over the features.
    """
    states = [_problem(task, l2, shared) for task, l2 in problems]
    for state, (weight, bias) in zip(states, start or (), strict=start is not None):
        rotated = torch.cat([shared.eigenvectors.T @ weight.T, (bias + weight @ shared.mean)[None]])
        state.point = rotated / state.scale
    for _ in range(max_iterations):
        active = [state for state in states if not state.done]
        if not active:
            break
        for state, (value, gradient) in zip(active, _evaluate(active, shared), strict=True):
            _advance(state, value, gradient, tolerance)
    weight, bias = _weights([state.point * state.scale for state in states], shared)
    # The bias was found for features about their mean.
    bias = bias - shared.mean @ weight
    sizes = [state.task.classes for state in states]
    return [(w.T.contiguous(), b) for w, b in zip(torch.split(weight, sizes, 1), torch.split(bias, sizes), strict=True)]


def _problem(task: HeadProblem, relative_l2: float, shared: Design) -> _Problem:
    l2, bound = relative_l2 * shared.mean_variance, _HESSIAN_BOUND[task.loss]
    curvature = torch.cat([bound * shared.eigenvalues + l2, shared.mean.new_tensor([bound])])
    scale = curvature.rsqrt()[:, None]
    return _Problem(task, l2, scale, torch.zeros(len(scale), task.classes, device=scale.device))


def _weights(scaled: Sequence[Tensor], shared: Design) -> tuple[Tensor, Tensor]:
    """The joint weight (D x all classes) and bias, for features from which the mean is taken."""
    joint = torch.cat(list(scaled), dim=1)
    return shared.eigenvectors @ joint[:-1], joint[-1]


def _evaluate(problems: Sequence[_Problem], shared: Design) -> list[tuple[float, Tensor]]:
    """The objective and preconditioned gradient of every problem at its trial point, in one pass over the features."""
    weight, bias = _weights([problem.trial * problem.scale for problem in problems], shared)
    product, residual_sum = torch.zeros_like(weight), torch.zeros_like(bias)
    losses = torch.zeros(len(problems), dtype=torch.float64, device=weight.device)
    for view in shared.views:
        for start in range(0, len(view), _BLOCK_ROWS):
            block = view[start : start + _BLOCK_ROWS] - shared.mean
            logits = torch.addmm(bias, block, weight)
            losses += _residuals_in_place(logits, problems, start)
            product.addmm_(block.T, logits)
            residual_sum += logits.sum(dim=0)
    rotated = torch.cat([shared.eigenvectors.T @ product, residual_sum[None]]) / shared.rows
    parts = torch.split(rotated, [problem.task.classes for problem in problems], dim=1)
    results = []
    for problem, loss, gradient in zip(problems, losses.tolist(), parts, strict=True):
        scaled = problem.trial * problem.scale
        scaled[-1] = 0.0  # the bias is not penalised
        value = loss / shared.rows + 0.5 * problem.l2 * float(scaled.square().sum())
        results.append((value, (gradient + problem.l2 * scaled) * problem.scale))
    return results


def _residuals_in_place(logits: Tensor, problems: Sequence[_Problem], start: int) -> Tensor:
    """Turn the logits of a block into probability - truth; return the summed loss of every problem."""
    losses, column = [], 0
    # The problems of a head with one l2 each stand side by side: one operation serves them all.
    for _, members in groupby(problems, key=lambda problem: id(problem.task)):
        alike = list(members)
        task, width = alike[0].task, len(alike) * alike[0].task.classes
        part = torch.unflatten(logits[:, column : column + width], 1, (len(alike), task.classes))
        truth = task.targets[start : start + len(part), None, None].expand(-1, len(alike), 1)
        chosen = part.gather(2, truth)
        if task.loss == "softmax":
            normaliser = part.logsumexp(dim=2, keepdim=True)
            losses.append((normaliser - chosen).sum(dim=(0, 2), dtype=torch.float64))
            part.sub_(normaliser).exp_()
        else:
            total = torch.nn.functional.softplus(part).sum(dim=(0, 2), dtype=torch.float64)
            losses.append(total - chosen.sum(dim=(0, 2), dtype=torch.float64))
            part.sigmoid_()
        part.scatter_add_(2, truth, torch.full_like(chosen, -1.0))
        column += width
    return torch.cat(losses)


def _advance(problem: _Problem, value: float, gradient: Tensor, tolerance: float) -> None:
    """Take a problem's trial point and a new direction if the loss fell enough, else halve the step."""
    if problem.direction is not None and value > problem.value + _ARMIJO * problem.step * problem.slope:
        problem.step *= 0.5
        problem.done = problem.step < 1e-6  # float32 can tell no further descent
        return
    if problem.gradient is not None:
        step, change = problem.trial - problem.point, gradient - problem.gradient
        # Only with a positive product does the inverse Hessian stay positive definite; rounding can make it negative.
        if float((step * change).sum()) > 0.0:
            problem.steps = [*problem.steps[1 - _HISTORY :], step]
            problem.changes = [*problem.changes[1 - _HISTORY :], change]
        problem.point = problem.trial
    problem.value, problem.gradient, problem.step = value, gradient, 1.0
    problem.done = 0.5 * float(gradient.square().sum()) < tolerance * value
    problem.direction = -_inverse_hessian_times(problem, gradient)
    problem.slope = float((problem.direction * gradient).sum())


def _inverse_hessian_times(problem: _Problem, gradient: Tensor) -> Tensor:
    """The two-loop recursion (Nocedal & Wright, algorithm 7.4) from the identity of the preconditioned space."""
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
