from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edgetl.measure.scenarios.contention import companies, measure_contention
from edgetl.measure.scenarios.interleave import ScenarioPlan
from edgetl.measure.scenarios.issue import ConcurrentWorkload

QUICK = ScenarioPlan(seconds=0.001, warmup_ms=1.0, slice_ms=10.0, min_rounds=6)


def test_everyone_runs_alone_in_every_pair_and_with_all() -> None:
    assert companies(("a", "b")) == (("a",), ("b",), ("a", "b"))
    assert companies(("a", "b", "c")) == (
        *(("a",), ("b",), ("c",)),
        *(("a", "b"), ("a", "c"), ("b", "c")),
        ("a", "b", "c"),
    )


@pytest.mark.slow
def test_only_parts_that_share_a_device_slow_each_other_down() -> None:
    device = threading.Lock()

    def on_device() -> None:
        with device:
            time.sleep(0.003)
        time.sleep(0.0005)  # gives the other a chance: a lock is not fair

    parts = {
        "a": ConcurrentWorkload(on_device),
        "b": ConcurrentWorkload(on_device),
        "elsewhere": ConcurrentWorkload(lambda: time.sleep(0.003)),
    }
    (found,) = measure_contention({"specialised": parts}, QUICK)
    ratio = {(one.workload, one.concurrent_with): one for one in found.contention}
    assert len(ratio) == 9, "two ways for each of three pairs, and three in the company of all"
    assert ratio["a", ("b",)].value > 1.4 and ratio["b", ("a",)].value > 1.4
    assert ratio["a", ("b",)].value > ratio["a", ("elsewhere",)].value
    assert ratio["a", ("b", "elsewhere")].value > ratio["elsewhere", ("a",)].value
    assert all(one.low <= one.value <= one.high for one in found.contention)
    assert [one.name for one in found.alone] == ["a", "b", "elsewhere"]
    assert found.rounds == 6


def test_real_sessions_are_held_against_one_another(session: Callable[[int], Callable[[], object]]) -> None:
    parts = {"small": ConcurrentWorkload(session(3)), "large": ConcurrentWorkload(session(12))}
    found = measure_contention({"x": parts, "y": parts}, QUICK)
    assert [one.title for one in found] == ["x", "y"]
    for one in found:
        alone = {part.name: part.p50_ms for part in one.alone}
        assert alone["large"] > alone["small"] > 0.0
        assert [(pair.workload, pair.concurrent_with) for pair in one.contention] == [
            ("small", ("large",)),
            ("large", ("small",)),
        ]
