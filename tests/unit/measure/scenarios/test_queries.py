from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from edgetl.measure.scenarios.figures import missed, percentile, pooled, why_unstable
from edgetl.measure.scenarios.interleave import ScenarioPlan, interleave
from edgetl.measure.scenarios.issue import ConcurrentWorkload
from edgetl.measure.scenarios.offline import Streams, measure_offline
from edgetl.measure.scenarios.queries import Query, measure_queries

QUICK = ScenarioPlan(seconds=0.0001, warmup_ms=1.0, slice_ms=5.0, min_rounds=6)


def test_single_stream_tells_p90_and_multi_stream_p99(session: Callable[[int], Callable[[], object]]) -> None:
    infer = session(3)
    (single,) = measure_queries("single-stream", {"a": Query(infer)}, QUICK)
    assert (single.title, single.percentile, single.query_size, single.rounds) == ("a", 90, 1, 6)
    (multi,) = measure_queries("multi-stream", {"a": Query(lambda: [infer() for _ in range(8)], 8)}, QUICK)
    assert (multi.percentile, multi.query_size, multi.batch) == (99, 8, 1)
    assert multi.latency_ms.value > single.latency_ms.low
    for found in (single, multi):
        assert 0.0 < found.latency_ms.low <= found.latency_ms.value <= found.latency_ms.high
        assert found.queries >= found.rounds


def test_a_query_is_issued_when_the_one_before_it_is_done() -> None:
    spans: list[tuple[float, float]] = []

    def query() -> None:
        begin = time.perf_counter()
        time.sleep(0.001)
        spans.append((begin, time.perf_counter()))

    measure_queries("single-stream", {"a": Query(query)}, QUICK)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_more_streams_and_larger_batches_give_more_images() -> None:
    sleeping = ConcurrentWorkload(lambda: time.sleep(0.002))
    candidates = {"one": Streams([sleeping]), "four": Streams([sleeping] * 4), "batches": Streams([sleeping], batch=16)}
    one, four, batches = measure_offline(candidates, QUICK)
    assert [(found.streams, found.batch) for found in (one, four, batches)] == [(1, 1), (4, 1), (1, 16)]
    assert one.throughput_ips.value < 500.0, "none can be faster than its sleep"
    assert four.throughput_ips.value > 2.0 * one.throughput_ips.value
    assert batches.throughput_ips.value > 8.0 * one.throughput_ips.value
    assert batches.throughput_ips.value < 8000.0


def test_rounds_are_interleaved_in_an_order_that_is_drawn() -> None:
    done: list[str] = []
    trials = {name: lambda name=name: done.append(name) for name in "abc"}
    found = interleave(trials, ScenarioPlan(seconds=1e-9, min_rounds=30))
    rounds = [tuple(done[n : n + 3]) for n in range(0, 90, 3)]
    assert all(set(one) == set("abc") for one in rounds) and len(set(rounds)) == 6
    assert {name: len(one) for name, one in found.items()} == {"a": 30, "b": 30, "c": 30}
    assert interleave({}, QUICK) == {}


def test_the_watcher_is_told_a_share_that_grows_to_the_whole() -> None:
    shares: list[float] = []
    interleave({"a": int}, QUICK, shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_the_interval_is_of_rounds_where_samples_of_a_round_go_together() -> None:
    rng = np.random.default_rng(0)
    independent = [rng.normal(10.0, 1.0, 100) for _ in range(20)]
    together = [np.full(100, level) for level in rng.normal(10.0, 1.0, 20)]
    narrow, wide = (pooled(rounds, percentile(90)) for rounds in (independent, together))
    assert wide.high - wide.low > 3.0 * (narrow.high - narrow.low)


def test_a_share_of_misses_has_an_interval_even_where_none_was_seen() -> None:
    never = missed([np.zeros(50, bool)] * 4)
    assert (never.value, never.low, never.n) == (0.0, 0.0, 200) and 0.0 < never.high < 0.03
    some = missed([np.arange(50) < 5, np.arange(50) < 15, np.zeros(50, bool)])
    assert some.low < some.value == 20 / 150 < some.high


def test_a_figure_is_doubted_with_the_reason() -> None:
    assert why_unstable([10.0, 10.1, 9.9, 10.0, 10.05, 9.95]) is None
    assert why_unstable([10.0, 14.0] * 5) == "the interval of the median is 33% of it, more than 5%"
