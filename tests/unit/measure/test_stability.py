from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from edgetl.measure.stability import change_point, interval_width, why_unstable


def noise(n: int, seed: int = 0, level: float = 0.01) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return 1.0 + level * np.random.default_rng(seed).standard_normal(n)


@pytest.mark.parametrize("place", [15, 30, 50])
def test_a_jump_is_found_where_it_is(place: int) -> None:
    values = noise(60)
    values[place:] *= 1.1
    found = change_point(values)
    assert found is not None and abs(found - place) <= 5
    why = why_unstable(values, (1.0, 1.01))
    assert why is not None and why.startswith("it changed by +") and why.endswith(f"after {found} of 60 rounds")


def test_noise_is_hardly_ever_taken_for_a_jump() -> None:
    assert sum(change_point(noise(100, seed)) is not None for seed in range(500)) <= 3


def test_the_place_is_where_a_rank_sum_test_of_the_two_sides_is_surest() -> None:
    values = noise(40, seed=3)
    values[25:] += 0.1
    surest = min(
        range(3, 38),
        key=lambda n: mannwhitneyu(values[:n], values[n:], method="asymptotic", use_continuity=False).pvalue,
    )
    assert change_point(values) == surest


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=80))
def test_any_series_has_an_answer(values: list[float]) -> None:
    array = np.array(values)
    place = change_point(array)
    assert place is None or 0 < place < len(values)
    assert interval_width(array) >= 0.0


def test_equal_values_do_not_jump() -> None:
    assert change_point(np.ones(50)) is None


def test_the_quick_interval_is_about_as_wide_as_theory_has_it() -> None:
    rng = np.random.default_rng(0)
    widths = [interval_width(rng.lognormal(size=81)) for _ in range(300)]
    # Of a lognormal with sigma 1 the median's standard error is 1.2533 / 9.
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 1.2533 / 9, rel=0.25)
