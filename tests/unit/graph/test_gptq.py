"""Numbers rounded together: sums come out nearer than when each is rounded to its own nearest step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from edgetl.graph.gptq import round_together


def problem(seed: int, groups: int, rows: int, columns: int, samples: int = 400):
    """Values scaled so that the largest of each row is 127, and inputs that go along with each other."""
    random = np.random.default_rng(seed)
    common = random.random((groups, samples, 1)) * 3.0
    inputs = np.maximum(random.normal(size=(groups, samples, columns)) + common, 0.0)
    values = random.normal(size=(groups, rows, columns))
    return values * 127 / np.abs(values).max(axis=2, keepdims=True), inputs


def errors(values: np.ndarray, rounded: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    return np.square((rounded - values) @ np.swapaxes(inputs, 1, 2)).mean(axis=(1, 2))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    groups=st.integers(1, 3),
    rows=st.integers(1, 5),
    columns=st.sampled_from([1, 2, 9, 63, 64, 65, 130]),
)
def test_they_are_integers_within_reach_and_the_largest_stays(seed, groups, rows, columns):
    values, inputs = problem(seed, groups, rows, columns)
    before = values.copy()
    rounded = round_together(values, np.swapaxes(inputs, 1, 2) @ inputs, 127)
    np.testing.assert_array_equal(rounded, np.rint(rounded))
    np.testing.assert_array_equal(np.abs(rounded).max(axis=2), 127.0)
    np.testing.assert_array_equal(values, before)
    at = np.abs(values).argmax(axis=2)[:, :, None]
    np.testing.assert_array_equal(np.take_along_axis(rounded, at, 2), np.rint(np.take_along_axis(values, at, 2)))


@pytest.mark.parametrize("columns", [9, 64, 150])
def test_sums_are_much_nearer_than_by_nearest_steps_also_of_inputs_not_seen(columns):
    values, inputs = problem(1, 2, 8, columns, 2000)
    seen, unseen = inputs[:, :1000], inputs[:, 1000:]
    together = round_together(values, np.swapaxes(seen, 1, 2) @ seen, 127)
    nearest = np.rint(values)
    assert (errors(values, together, unseen) < 0.4 * errors(values, nearest, unseen)).all()


def test_inputs_that_have_nothing_to_do_with_each_other_leave_nearest_steps():
    values, _ = problem(2, 1, 6, 40)
    np.testing.assert_array_equal(round_together(values, np.eye(40)[None] * 5.0, 127), np.rint(values))


def test_inputs_that_were_never_seen_leave_nearest_steps():
    values, _ = problem(3, 2, 3, 12)
    np.testing.assert_array_equal(round_together(values, np.zeros((2, 12, 12)), 127), np.rint(values))


def test_it_is_near_the_best_there_is():
    """Against the exact solution of a small problem, by HiGHS: the least sum of absolute errors over few inputs."""
    values, inputs = problem(4, 1, 1, 8, 12)
    together = round_together(values, np.swapaxes(inputs, 1, 2) @ inputs, 127)
    columns, samples = 8, 12
    # Variables: integers q (8), then bounds t (12) of |inputs (q - values)|.
    cost = np.concatenate([np.zeros(columns), np.ones(samples)])
    target = inputs[0] @ values[0, 0]
    above = np.hstack([inputs[0], -np.eye(samples)])
    below = np.hstack([-inputs[0], -np.eye(samples)])
    exact = milp(
        cost,
        integrality=np.concatenate([np.ones(columns), np.zeros(samples)]),
        bounds=Bounds(np.concatenate([np.full(columns, -127.0), np.zeros(samples)]), np.inf),
        constraints=[LinearConstraint(above, ub=target), LinearConstraint(below, ub=-target)],
    )
    best = exact.x[None, None, :columns].round()

    def off(q: np.ndarray) -> float:
        return float(np.abs((q - values) @ np.swapaxes(inputs, 1, 2)).sum())

    assert off(best) <= off(together) + 1e-9 < off(np.rint(values))
