"""Estimates from files: figures worked out by hand, what is refused, and the whole of a study's deployments."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from edgetl.errors import EdgetlError
from edgetl.measure.devices import find_device_peaks
from edgetl.report.terminal import estimate_table
from edgetl.stages.estimate import estimate_files


def two_layers(folder: Path, side: int = 32, channels: int = 8) -> Path:
    """A convolution with its Relu, and one that reads it."""
    random = np.random.default_rng(0)
    shapes = {"w1": (channels, 3, 3, 3), "w2": (4, channels, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two layers",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4, side, side])],
        [numpy_helper.from_array(random.random(shape, np.float32), name) for name, shape in shapes.items()],
    )
    path = folder / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_graph_of_two_layers_takes_what_is_worked_out_by_hand(tmp_path: Path) -> None:
    target, (row,) = find_device_peaks("Nano@5W"), estimate_files([two_layers(tmp_path)], ["nano@5w"])
    reached = target.efficiency
    pixels = 32 * 32
    seconds = 0.0
    for flops, elements in (
        (2 * 27 * 8 * pixels, 8 * 27 + (3 + 8) * pixels),
        (2 * 8 * 4 * pixels, 4 * 8 + (8 + 4) * pixels),
    ):
        work = flops / (256 * 640e6 * reached.compute["fp32"])
        seconds += max(work, 4 * elements / (25.6e9 * reached.bandwidth)) + reached.launch_us * 1e-6
    assert row.middle == pytest.approx(1e3 * seconds)
    assert (row.device, row.mode, row.precision) == ("Nano", "5W", "fp32")
    assert row.low == pytest.approx(row.middle / reached.spread)
    # The weights, and while the second layer runs what it reads and what it makes.
    assert row.memory_mb == pytest.approx(4 * (8 * 27 + 4 * 8 + (8 + 4) * pixels) / 1e6)
    assert row.fits and row.unverified == ("clock, SMs and bandwidth",)


def test_each_graph_is_estimated_on_each_device(tmp_path: Path) -> None:
    rows = estimate_files([two_layers(tmp_path)], ["Orin Nano 8GB", "AGX Orin 64GB"])
    assert [row.device for row in rows] == ["Orin Nano 8GB", "AGX Orin 64GB"]
    assert rows[1].middle <= rows[0].middle


def test_a_graph_can_be_estimated_as_if_it_were_prepared(tmp_path: Path) -> None:
    graph = two_layers(tmp_path, side=512, channels=64)
    rows = [estimate_files([graph], ["Orin Nano 8GB"], precision)[0] for precision in ("fp32", "fp16", "int8")]
    assert [row.precision for row in rows] == ["fp32", "fp16", "int8"]
    assert rows[0].middle > rows[1].middle > rows[2].middle
    assert rows[0].memory_mb == pytest.approx(4 * rows[2].memory_mb)


def test_a_precision_that_the_device_lacks_is_refused_with_the_file(tmp_path: Path) -> None:
    graph = two_layers(tmp_path)
    with pytest.raises(EdgetlError, match=f"{graph}: Nano cannot run int8"):
        estimate_files([graph], ["Nano"], "int8")


def test_a_graph_of_no_certain_size_is_refused(tmp_path: Path) -> None:
    graph = two_layers(tmp_path)
    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(model, graph)
    with pytest.raises(EdgetlError, match="does not tell the size"):
        estimate_files([graph], ["Nano"])


def test_suppression_is_not_counted_and_said_not_to_be(tmp_path: Path) -> None:
    graph = two_layers(tmp_path)
    model = onnx.load(graph)
    plain = estimate_files([graph], ["Nano"])[0]
    flat = numpy_helper.from_array(np.array([1, -1, 4]), "flat")
    model.graph.initializer.append(flat)
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["out", "flat"], ["boxes"]),
            helper.make_node("Transpose", ["boxes"], ["scores"], perm=[0, 2, 1]),
            helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["chosen"]),
        ]
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("chosen", TensorProto.INT64, ["M", 3]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, graph)
    (row,) = estimate_files([graph], ["Nano"])
    assert row.left_out == ("NonMaxSuppression",) and row.middle > plain.middle


def test_what_is_larger_than_the_memory_is_said_not_to_fit(tmp_path: Path) -> None:
    (row,) = estimate_files([two_layers(tmp_path, side=4096, channels=64)], ["Orin Nano 4GB"])
    assert row.memory_mb > 4000 and not row.fits


def test_the_table_says_that_nothing_was_measured(tmp_path: Path) -> None:
    stream = io.StringIO()
    table = estimate_table(estimate_files([two_layers(tmp_path)], ["Thor T4000", "Orin Nano 8GB"]))
    Console(file=stream, width=160).print(table)
    shown = stream.getvalue()
    assert "ESTIMATE" in shown and "nothing was measured" in shown
    assert "Thor T4000@MAXN*" in shown and "Orin Nano 8GB@MAXN_SUPER " in shown
    assert "from memory" in shown
