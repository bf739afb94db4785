"""The solver against scikit-learn's optimum of the same problem."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the extra train")
from scipy.optimize import minimize  # noqa: E402
from scipy.special import expit, logsumexp  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from edgetl.train.solver import HeadProblem, LossName, design, fit  # noqa: E402

Array = npt.NDArray[np.float64]
Solution = tuple[Array, Array]

STRENGTHS = (3e-4, 1e-2, 1e-1)


def test_digits_reach_the_optimum_of_scikit_learn(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    for strength, found in zip(STRENGTHS, _fit(features, targets, 10, "softmax", STRENGTHS), strict=True):
        _assert_equal_to_sklearn(features, targets, "softmax", strength, found)


@pytest.mark.slow
def test_badly_scaled_features_reach_the_optimum_of_scikit_learn(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    scaled = features * 10.0 ** np.random.default_rng(0).uniform(-2, 2, features.shape[1])
    for strength, found in zip(STRENGTHS, _fit(scaled, targets, 10, "softmax", STRENGTHS), strict=True):
        _assert_equal_to_sklearn(scaled, targets, "softmax", strength, found)


@pytest.mark.parametrize("offset", [10.0, 1000.0], ids=lambda offset: f"mean_{offset:g}_deviations_off_zero")
def test_features_far_off_zero_reach_the_optimum_of_scikit_learn(digits: tuple[Array, Array], offset: float) -> None:
    features, targets = digits
    shifted = (features + offset * features.std(axis=0).mean()).astype(np.float32).astype(np.float64)
    centred = shifted - shifted.mean(axis=0)  # the same problem, and the one that scikit-learn solves well
    ((weight, bias),) = _fit(shifted, targets, 10, "softmax", [1e-2])
    _assert_equal_to_sklearn(centred, targets, "softmax", 1e-2, (weight, bias + weight @ shifted.mean(axis=0)))


def test_sigmoid_tasks_reach_the_optimum_of_every_binary_problem(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    for strength, (weight, bias) in zip(STRENGTHS, _fit(features, targets, 10, "sigmoid", STRENGTHS), strict=True):
        penalty = strength * _mean_variance(features)
        best = [_sklearn(features, targets == label, penalty) for label in range(10)]
        optimum = np.concatenate([w for w, _ in best]), np.concatenate([b for _, b in best])
        _assert_as_good(features, targets, "sigmoid", penalty, (weight, bias), optimum)
        said = features @ weight.T + bias > 0
        assert (said == (features @ optimum[0].T + optimum[1] > 0)).mean() > 0.99


def test_two_classes_are_the_binary_problem_with_half_the_penalty(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    truth = (targets == 3).astype(np.int64)
    penalty = 1e-2 * _mean_variance(features)
    ((weight, bias),) = _fit(features, truth, 2, "softmax", [1e-2])
    # At the optimum the two columns are opposite, so |W|^2 is half the square of their difference.
    binary, intercept = _sklearn(features, truth, penalty / 2)
    optimum = np.concatenate([-binary, binary]) / 2, np.concatenate([-intercept, intercept]) / 2
    _assert_as_good(features, truth, "softmax", penalty, (weight, bias), optimum)


def test_tasks_fitted_together_are_as_when_fitted_alone(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    shared = design([_tensor(features)])
    tasks = [
        HeadProblem(torch.from_numpy(targets), 10, "softmax"),
        HeadProblem(torch.from_numpy(targets), 10, "sigmoid"),
        HeadProblem(torch.from_numpy(targets % 3), 3, "softmax"),
    ]
    problems = [(task, strength) for task in tasks for strength in STRENGTHS]
    for (task, strength), (weight, bias) in zip(problems, fit(shared, problems), strict=True):
        ((alone, alone_bias),) = fit(shared, [(task, strength)])
        same = _numbers(alone, alone_bias)
        penalty = strength * _mean_variance(features)
        truth = task.targets.numpy()
        a, b = (_objective(features, truth, task.loss, penalty, *w) for w in (_numbers(weight, bias), same))
        assert a == pytest.approx(b, rel=1e-3)
        assert (_predict(features, *_numbers(weight, bias)) == _predict(features, *same)).mean() > 0.995


def test_views_weigh_equally(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    noisy = features + np.random.default_rng(0).normal(0, 2, features.shape)
    task = HeadProblem(torch.from_numpy(targets), 10, "softmax")
    ((weight, bias),) = fit(design([_tensor(features), _tensor(noisy)]), [(task, 1e-2)])
    stacked, twice = np.concatenate([features, noisy]), np.concatenate([targets, targets])
    _assert_equal_to_sklearn(stacked, twice, "softmax", 1e-2, _numbers(weight, bias))


def test_the_order_of_the_views_plays_no_part(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    views = [_tensor(features), _tensor(features * 1.1), _tensor(features[:, ::-1].copy())]
    task = HeadProblem(torch.from_numpy(targets), 10, "softmax")
    forwards, backwards = (_numbers(*fit(design(v), [(task, 1e-2)])[0]) for v in (views, views[::-1]))
    assert (_predict(features, *forwards) == _predict(features, *backwards)).mean() > 0.995


def test_a_second_fit_gives_the_same_bits(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    first, second = (_fit(features, targets, 10, "softmax", STRENGTHS) for _ in range(2))
    for (weight, bias), (again, bias_again) in zip(first, second, strict=True):
        assert np.array_equal(weight, again) and np.array_equal(bias, bias_again)


def test_more_rows_than_a_block_give_the_moments_of_all(digits: tuple[Array, Array]) -> None:
    features = np.tile(digits[0], (8, 1)) + np.random.default_rng(0).normal(0, 1, (8 * len(digits[0]), 64))
    found = design([_tensor(features[:5000]), _tensor(features[5000:])])
    assert np.allclose(found.mean, features.mean(axis=0), atol=1e-4)
    vectors = found.eigenvectors.numpy().astype(np.float64)
    assert np.allclose(vectors * found.eigenvalues.numpy() @ vectors.T, np.cov(features.T, bias=True), atol=1e-2)
    assert found.mean_variance == pytest.approx(_mean_variance(features), rel=1e-5)


def test_constant_features_get_no_weight(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    widened = np.concatenate([features, np.full((len(features), 3), 7.0)], axis=1)
    ((weight, bias),) = _fit(widened, targets, 10, "softmax", [1e-2])
    assert np.abs(weight[:, 64:]).max() < 1e-2 * np.abs(weight).max()
    _assert_equal_to_sklearn(widened, targets, "softmax", 1e-2, (weight, bias))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_class_without_images_is_never_predicted(digits: tuple[Array, Array], loss: LossName) -> None:
    features, targets = digits
    ((weight, bias),) = _fit(features, targets, 11, loss, [1e-2])
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    assert not (_predict(features, weight, bias) == 10).any()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_nothing_but_constant_features_predict_the_most_frequent_class(value: float) -> None:
    targets = np.repeat([0, 1, 2], [20, 70, 10])
    ((weight, bias),) = _fit(np.full((100, 5), value), targets, 3, "softmax", [1e-2])
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    assert _predict(np.full((1, 5), value), weight, bias) == [1]


def test_duplicated_features_reach_the_optimum_of_scikit_learn(digits: tuple[Array, Array]) -> None:
    features, targets = digits
    doubled = np.concatenate([features, features], axis=1)
    ((weight, bias),) = _fit(doubled, targets, 10, "softmax", [1e-2])
    assert np.abs(weight[:, :64] - weight[:, 64:]).max() < 1e-2 * np.abs(weight).max()
    _assert_equal_to_sklearn(doubled, targets, "softmax", 1e-2, (weight, bias))


def test_more_features_than_images_reach_the_optimum_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(60) % 4
    features = rng.normal(0, 1, (60, 400)) + rng.normal(0, 0.3, (4, 400))[targets]
    for strength, found in zip(STRENGTHS, _fit(features, targets, 4, "softmax", STRENGTHS), strict=True):
        _assert_equal_to_sklearn(features, targets, "softmax", strength, found)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("strength", [1e-6, 1e-9])
def test_separable_data_with_tiny_strengths_stay_finite_and_are_separated(loss: LossName, strength: float) -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    features = rng.normal(0, 1, (90, 20)) + 20 * np.eye(3, 20)[targets]
    ((weight, bias),) = _fit(features, targets, 3, loss, [strength])
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
    assert (_predict(features, weight, bias) == targets).all()
    assert _objective(features, targets, loss, strength * _mean_variance(features), weight, bias) < 0.02


def test_one_image_for_each_class_is_enough_to_fit() -> None:
    features = np.random.default_rng(0).normal(0, 1, (3, 50))
    ((weight, bias),) = _fit(features, np.arange(3), 3, "softmax", [1e-3])
    assert (_predict(features, weight, bias) == np.arange(3)).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(5, 60),
    width=st.integers(1, 30),
    classes=st.integers(2, 5),
    loss=st.sampled_from(["softmax", "sigmoid"]),
    strength=st.sampled_from([1e-3, 1e-2, 1e-1]),
    spread=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_no_random_problem_ends_away_from_its_optimum(
    seed: int, rows: int, width: int, classes: int, loss: LossName, strength: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (rows, width)) * 10.0 ** rng.uniform(-spread, spread, width)
    features = features.astype(np.float32).astype(np.float64)
    targets = rng.permutation(np.arange(rows) % classes)
    ((weight, bias),) = _fit(features, targets, classes, loss, [strength])
    penalty = strength * _mean_variance(features)
    value, gradient = _value_and_gradient(features, targets, loss, penalty, weight, bias)
    # f - f* <= |g|^2 / (2 * penalty) over the weights: a bound on what is left that needs no optimum.
    assert np.linalg.norm(gradient[:-1]) ** 2 / (2 * penalty) < 0.5 * max(value, 0.01)
    best = minimize(
        lambda flat: _flat(features, targets, loss, penalty, flat, classes),
        np.concatenate([weight.T, bias[None]]).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "ftol": 1e-13},
    )
    assert value <= 1.001 * best.fun + 1e-6


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    found = load_digits()
    return found.data[::2].astype(np.float64), found.target[::2].astype(np.int64)


def _tensor(features: Array) -> torch.Tensor:
    return torch.from_numpy(features.astype(np.float32))


def _numbers(weight: torch.Tensor, bias: torch.Tensor) -> Solution:
    return weight.numpy().astype(np.float64), bias.numpy().astype(np.float64)


def _fit(features: Array, targets: Array, classes: int, loss: LossName, strengths: Sequence[float]) -> list[Solution]:
    task = HeadProblem(torch.from_numpy(targets), classes, loss)
    fitted = fit(design([_tensor(features)]), [(task, strength) for strength in strengths])
    return [_numbers(weight, bias) for weight, bias in fitted]


def _mean_variance(features: Array) -> float:
    return float(features.var(axis=0).mean())


def _predict(features: Array, weight: Array, bias: Array) -> npt.NDArray[np.int64]:
    return (features @ weight.T + bias).argmax(axis=1)


def _sklearn(features: Array, targets: Array, penalty: float) -> Solution:
    """scikit-learn minimises C * summed loss + |W|^2 / 2."""
    model = LogisticRegression(C=1 / (len(features) * penalty), solver="newton-cg", tol=1e-7, max_iter=500)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # at the optimum its line search finds no further descent, and says so
        model.fit(features, targets)
    return model.coef_, model.intercept_


def _assert_equal_to_sklearn(features: Array, targets: Array, loss: LossName, strength: float, found: Solution) -> None:
    penalty = strength * _mean_variance(features)
    optimum = _sklearn(features, targets, penalty)
    _assert_as_good(features, targets, loss, penalty, found, optimum)
    assert (_predict(features, *found) == _predict(features, *optimum)).mean() > 0.99


def _assert_as_good(
    features: Array, targets: Array, loss: LossName, penalty: float, found: Solution, optimum: Solution
) -> None:
    values = [_objective(features, targets, loss, penalty, *solution) for solution in (found, optimum)]
    # One thousandth, but for what float32 logits of a size of ten leave of a loss that is nearly nothing.
    assert values[0] <= 1.001 * values[1] + 1e-6


def _objective(features: Array, targets: Array, loss: LossName, penalty: float, weight: Array, bias: Array) -> float:
    return _value_and_gradient(features, targets, loss, penalty, weight, bias)[0]


def _value_and_gradient(
    features: Array, targets: Array, loss: LossName, penalty: float, weight: Array, bias: Array
) -> tuple[float, Array]:
    """Mean loss + penalty / 2 * |W|^2 in float64; the gradient is (D + 1) x classes, the bias last."""
    logits = features @ weight.T + bias
    truth = np.eye(logits.shape[1])[targets]
    if loss == "softmax":
        normaliser = logsumexp(logits, axis=1, keepdims=True)
        value = float((normaliser[:, 0] - (logits * truth).sum(axis=1)).mean())
        residual = np.exp(logits - normaliser) - truth
    else:
        value = float((np.logaddexp(0, logits) - logits * truth).sum(axis=1).mean())
        residual = expit(logits) - truth
    gradient = np.concatenate([features.T @ residual, residual.sum(axis=0)[None]]) / len(features)
    gradient[:-1] += penalty * weight.T
    return value + 0.5 * penalty * float((weight**2).sum()), gradient


def _flat(
    features: Array, targets: Array, loss: LossName, penalty: float, flat: Array, classes: int
) -> tuple[float, Array]:
    point = flat.reshape(-1, classes)
    value, gradient = _value_and_gradient(features, targets, loss, penalty, point[:-1].T, point[-1])
    return value, gradient.ravel()
