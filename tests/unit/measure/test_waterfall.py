from __future__ import annotations

import time

import pytest

from edgetl.measure.waterfall import STEPS, InferencePipeline, Stopwatch, measure_waterfall


def wait(milliseconds: float) -> None:
    end = time.perf_counter() + milliseconds / 1e3
    while time.perf_counter() < end:
        pass


def way(decode: float, preprocess: float, inference: float, rest: float) -> InferencePipeline[str, str, str]:
    """Steps that take a while each; the answer is an inference and something after it."""
    stopwatch = Stopwatch()
    infer = stopwatch.watch(lambda: wait(inference))

    def step(milliseconds: float, value: str) -> str:
        wait(milliseconds)
        return value

    def answer(ready: str) -> None:
        infer()
        wait(rest)

    return InferencePipeline(lambda file: step(decode, file), lambda image: step(preprocess, image), answer, stopwatch)


def test_each_step_takes_at_least_what_was_spent_in_it() -> None:
    found = measure_waterfall(way(2.0, 1.0, 3.0, 0.5), ["a", "b"], seconds=0.1)
    assert [step.name for step in found.steps] == list(STEPS)
    for step, least in zip(found.steps, (2.0, 1.0, 3.0, 0.5), strict=True):
        assert step.ms >= least
    assert found.total_ms >= 6.5
    assert sum(step.fraction for step in found.steps) == pytest.approx(1.0)
    assert found.not_inference == pytest.approx(1.0 - found.steps[2].fraction)
    assert found.images == 2 and found.samples % 2 == 0 and found.samples >= 2


def test_every_image_is_passed_equally_often_and_its_order_is_drawn() -> None:
    seen: list[str] = []
    free = way(0.0, 0.0, 0.0, 0.0)
    watched = InferencePipeline(lambda file: seen.append(file) or file, free.preprocess, free.answer, free.inference)  # type: ignore[func-returns-value]
    found = measure_waterfall(watched, list("abcdef"), seconds=0.01)
    assert {seen.count(file) for file in "abcdef"} == {1 + found.samples // 6}
    rounds = {"".join(seen[at : at + 6]) for at in range(6, len(seen), 6)}
    assert len(rounds) > 1 or found.samples == 6


def test_a_step_that_fails_is_not_swallowed() -> None:
    def fail(file: str) -> str:
        raise OSError("gone")

    free = way(0.0, 0.0, 0.0, 0.0)
    with pytest.raises(OSError, match="gone"):
        measure_waterfall(InferencePipeline(fail, free.preprocess, free.answer, free.inference), ["a"], seconds=0.0)
