from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgetl.engine.layer_times import TimedLayer, origins
from edgetl.engine.ort_profile import read_profile
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, time_layers
from edgetl.errors import EdgetlError
from tests.unit.engine.conftest import cnn

Array = NDArray[np.float32]


def build(graph: Path) -> Path:
    engine = graph.with_name("engine.onnx")
    build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
    return engine


def test_each_layer_of_an_engine_is_timed_and_leads_to_its_node(graph: Path, images: Array) -> None:
    times = time_layers(build(graph), [images[:1]], runs=5)
    find = origins(onnx.load(graph))
    found = {layer.operator: find(layer) for layer in times.layers}
    assert times.runs == 5
    assert [find(layer) for layer in times.layers if layer.operator == "Conv"] == ["first", "second"]
    assert found["GlobalAveragePool"] == "pool" and found["Softmax"] == "softmax"
    assert all(layer.ms > 0 for layer in times.layers)
    assert times.whole_ms > 0


def test_layers_inside_a_loop_count_once(tmp_path: Path) -> None:
    """A sum over 200 rounds of a loop: the loop's own event holds the others and would count them twice."""
    inner = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="inner"),
            helper.make_node("Identity", ["go"], ["still"], name="on"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 16]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 16]),
        ],
    )
    constants = [
        helper.make_tensor("rounds", TensorProto.INT64, [], [200]),
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        helper.make_tensor("w", TensorProto.FLOAT, [16, 16], np.eye(16, dtype=np.float32).ravel()),
    ]
    loop = helper.make_node("Loop", ["rounds", "true", "images"], ["out"], name="loop", body=inner)
    value = helper.make_tensor_value_info
    images = [value("images", TensorProto.FLOAT, [16, 16])]
    outer = helper.make_graph([loop], "g", images, [value("out", TensorProto.FLOAT, [16, 16])], constants)
    onnx.save(helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "l.onnx")
    times = time_layers(build(tmp_path / "l.onnx"), [np.ones((16, 16), np.float32)], runs=3)
    assert "Loop" not in {layer.operator for layer in times.layers}
    assert "inner" in {layer.name for layer in times.layers}
    assert sum(layer.ms for layer in times.layers) <= times.whole_ms


@pytest.mark.parametrize(
    ("name", "operator", "node"),
    [
        ("second", "Conv", "second"),
        ("r1_nchwc", "Conv", "first"),
        ("second_token_4", "QLinearConv", "second"),
        ("first + between", "", "first"),
        ("PWN(between)", "", "between"),
        ("between + second", "", "second"),
        ("{ForeignNode[flatten...softmax]}", "", "flatten"),
        ("second + relu || between", "", "second"),
        ("__myl_Conv_0 [ONNX Layer: second]", "", "second"),
        ("ReorderOutput", "ReorderOutput", None),
        ("Reformatting CopyNode for Input Tensor 0 to first + between", "", "first"),
    ],
)
def test_names_of_both_runtimes_lead_to_nodes(name: str, operator: str, node: str | None) -> None:
    assert origins(cnn())(TimedLayer(name, operator, 1.0)) == node


@given(st.text(max_size=60), st.text(max_size=8))
def test_any_name_leads_to_a_node_or_to_none(name: str, operator: str) -> None:
    graph = cnn()
    assert origins(graph)(TimedLayer(name, operator, 1.0)) in {None, *(node.name for node in graph.graph.node)}


def kernel(name: str, start: float, microseconds: float, operator: str = "Conv") -> dict[str, object]:
    return {
        "cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": microseconds, "args": {"op_name": operator}
    }  # fmt: skip


def test_a_layer_that_ran_twice_in_a_run_took_both_times(tmp_path: Path) -> None:
    runs = [{"cat": "Session", "name": "model_run", "ts": 1000 * n, "dur": 900} for n in range(3)]
    events = [kernel("a", 1000 * n + at, 100 * n) for n in range(3) for at in (10, 500)]
    (tmp_path / "p.json").write_text(json.dumps([*runs, *events, kernel("before all", -50, 1)]))
    times = read_profile(tmp_path / "p.json", warm=1)
    (layer,) = times.layers
    assert (layer.name, layer.operator) == ("a", "Conv")
    assert layer.ms == pytest.approx(0.3), "the median of 0.2 and 0.4 ms"
    assert (times.runs, times.whole_ms) == (2, 0.9)


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}", b"[]", b"[1, 2]", b'[{"name": "model_run"}]', b"3"])
def test_what_is_no_profile_is_a_clear_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(EdgetlError, match="ONNX Runtime's profile"):
        read_profile(tmp_path / "p.json", warm=0)
