from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.measure.layer_breakdown import EngineProfile, NodeTime, fold

WHOLE = EngineProfile("m.onnx", "a profiler", 30, 12.0, 10.0)


def timed(*layers: tuple[str | None, float]) -> list[NodeTime]:
    return [NodeTime(f"layer {number}", node, "Conv", ms) for number, (node, ms) in enumerate(layers)]


def test_shares_are_those_of_the_sum_and_the_wholes_stand_beside() -> None:
    found = fold(timed(("/a/Conv", 6.0), ("/b/Conv", 2.0)), WHOLE, {})
    assert [(layer.node, layer.fraction) for layer in found.layers] == [("/a/Conv", 0.75), ("/b/Conv", 0.25)]
    assert (found.sum_ms, found.profiled_ms, found.latency_ms) == (8.0, 12.0, 10.0)


def test_the_trunk_stands_against_the_heads() -> None:
    layers = timed(("/a/Conv", 6.0), ("/b/Conv", 2.0), (None, 1.0), ("signs/linear", 1.0))
    found = fold(layers, WHOLE, {"/a/Conv": "trunk", "/b/Conv": "trunk", "signs/linear": "signs"})
    assert [(part.name, part.ms, part.fraction) for part in found.parts] == [
        ("trunk", 8.0, 0.8), ("put in by the runtime", 1.0, 0.1), ("signs", 1.0, 0.1),
    ]  # fmt: skip


def test_a_trunk_alone_has_no_parts() -> None:
    assert fold(timed(("/a/Conv", 6.0)), WHOLE, {"/a/Conv": "trunk"}).parts == ()


def test_blocks_are_split_where_the_time_is() -> None:
    deep = [(f"/layer{n}/layer{n}.{m}/Conv", 10.0 if n == 1 else 1.0) for n in range(4) for m in range(6)]
    found = fold(timed(*deep), WHOLE, {})
    names = [block.name for block in found.blocks]
    assert names == ["layer0", *(f"layer1/layer1.{m}" for m in range(6)), "layer2", "layer3"]


def test_names_without_common_beginnings_make_no_blocks() -> None:
    assert fold(timed(("a", 1.0), ("b", 2.0)), WHOLE, {}).blocks == ()


@given(
    st.lists(
        st.tuples(st.none() | st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), st.floats(0, 9)),
        max_size=30,
    )
)
def test_blocks_and_parts_lose_no_time(layers: list[tuple[str | None, float]]) -> None:
    found = fold(timed(*layers), WHOLE, {"a": "trunk", "a/b": "signs"})
    total = sum(ms for _, ms in layers)
    for folded in (found.blocks, found.parts):
        if folded:
            assert sum(part.ms for part in folded) == pytest.approx(total, abs=1e-4)
            assert sum(part.layers for part in folded) == len(layers)
