"""The first layer and the last are INT8 where that saves something and costs little noise; both are on record."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.config import CalibrationRecipe
from edgetl.graph.calibrate import ranked_tables, watched
from edgetl.graph.cost import CostModel
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.observe import Observer, quantisable_tensors
from edgetl.graph.qdq_placement import first_layers, place_qdq
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results, snr_db
from tests.calibrating import calibrate

AUTO = CalibrationRecipe(method="auto")
TARGETS = ["tensorrt", "onnxruntime"]


@pytest.fixture
def drawn(sketch):
    """A network with so many classes, whose trunk loses as much to INT8 as real ones do: one channel reaches far.

    ``reach`` multiplies its first feature, whose weights are divided by it.
    """

    def drawn(classes: int, reach: float = 1.0) -> onnx.ModelProto:
        drawing = sketch()
        uneven = np.ones((1, 16, 1, 1))
        uneven[0, 0] = 40.0
        tensor = drawing.node("Relu", [drawing.conv(drawing.start, 3, 16)])
        tensor = drawing.node("Mul", [tensor, drawing.constant(uneven)])
        kernel = drawing.constant(drawing.random.normal(0.0, 0.1, (32, 16, 3, 3)) / uneven)
        tensor = drawing.node("Conv", [tensor, kernel], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        features = drawing.features(drawing.node("Relu", [tensor]))
        factors = np.ones(32)
        factors[0] = reach
        features = drawing.node("Mul", [features, drawing.constant(factors)])
        weight = drawing.constant(drawing.random.normal(0.0, 0.2, (32, classes)) / factors[:, None])
        logits = drawing.node("MatMul", [features, weight], output="logits")
        drawing.node("Softmax", [logits], output="answer")
        drawing.outputs.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", classes]))
        return drawing.model()

    return drawn


def in_float(table: CalibrationTable) -> CalibrationTable:
    return table.model_copy(update={"last": ()})


def weight_of_last(model: onnx.ModelProto) -> onnx.NodeProto | None:
    wiring = Wiring(model.graph)
    return wiring.producer(wiring.producer("logits").input[1])


@pytest.mark.parametrize("target", TARGETS)
def test_a_last_layer_that_saves_much_is_int8_by_the_graphs_figures(target, drawn, images, record, judging) -> None:
    model = drawn(classes=2000)
    table = calibrate(model, [images(8)], AUTO, record(8))
    (note,) = table.last
    assert note.layer == "logits" and note.int8
    graphs = {"float": quantize(model, in_float(table), "tensorrt"), "int8": quantize(model, table, "tensorrt")}
    pictures = judging(model, images(8))
    exact = results(model, pictures)["logits"]
    noise = {name: snr_db(exact, results(graph, pictures)["logits"]) for name, graph in graphs.items()}
    assert (note.snr_db, note.snr_db_int8) == pytest.approx((noise["float"], noise["int8"]), abs=0.02)
    cost = {name: CostModel(graph).cost().relative_latency for name, graph in graphs.items()}
    assert note.saved == pytest.approx(1 - cost["int8"] / cost["float"], abs=1e-4) and note.saved > 0.1
    written = weight_of_last(quantize(model, table, target))
    assert written is not None and written.op_type == "DequantizeLinear"


def test_a_last_layer_that_saves_nothing_stays_in_float(drawn, images, record) -> None:
    model = drawn(classes=2)
    table = calibrate(model, [images(8)], AUTO, record(8))
    (note,) = table.last
    assert not note.int8 and note.saved < 0.01
    assert model_bytes(quantize(model, table, "tensorrt")) == model_bytes(quantize(model, in_float(table), "tensorrt"))
    assert weight_of_last(quantize(model, table, "tensorrt")) is None


def test_a_last_layer_that_int8_harms_stays_in_float_whatever_it_saves(drawn, images, record) -> None:
    (note,) = calibrate(drawn(classes=2000, reach=4000.0), [images(8)], AUTO, record(8)).last
    assert not note.int8
    assert note.saved > 0.1 and note.snr_db_int8 < note.snr_db - 0.5


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_else_is_placed_otherwise_for_it(target, drawn, images, record) -> None:
    model = drawn(classes=2000)
    table = calibrate(model, [images(8)], AUTO, record(8))
    before, after = (place_qdq(Wiring(model.graph), target, last=last) for last in ((), table.last_in_int8()))
    (layer,) = set(after.layers) - set(before.layers)
    assert model.graph.node[layer].output[0] == "logits"
    assert after.slots - before.slots == {(layer, 0)} and before.slots < after.slots


def test_only_auto_asks(drawn, images, record) -> None:
    assert calibrate(drawn(classes=2000), [images(8)], CalibrationRecipe(method="mse"), record(8)).last == ()


def test_batches_and_order_do_not_change_a_byte(drawn, images, record) -> None:
    model, pictures = drawn(classes=2000), images(8)
    orders = [[pictures], [pictures[5:], pictures[:5]], [pictures[one : one + 1] for one in range(7, -1, -1)]]
    tables = [calibrate(model, batches, AUTO, record(8)) for batches in orders]
    assert len({table.model_dump_json() for table in tables}) == 1
    assert len({model_bytes(quantize(model, table, "onnxruntime")) for table in tables}) == 1


def test_first_layers_have_no_other_before_them(drawn) -> None:
    model = drawn(classes=2)
    wiring = Wiring(model.graph)
    (first,) = first_layers(wiring, "tensorrt")
    convs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    assert first == convs[0] and len(convs) > 1


def test_layers_that_read_the_images_together_are_first_together(sketch) -> None:
    drawing = sketch()
    left, right = drawing.conv(drawing.start, 3, 8), drawing.conv(drawing.start, 3, 8)
    both = drawing.node("Relu", [drawing.node("Add", [left, right])])
    assert first_layers(Wiring(drawing.model().graph), "tensorrt") == ()
    drawing.features(drawing.node("Relu", [drawing.conv(both, 8, 8)]))
    assert first_layers(Wiring(drawing.model().graph), "tensorrt") == (left, right)


def test_where_no_layer_would_be_int8_without_the_first_ones_nobody_asks(sketch, images, record) -> None:
    """ONNX Runtime's spelling leaves a convolution in float that makes results: then the first is all there is."""
    drawing = sketch()
    stem = drawing.node("Relu", [drawing.conv(drawing.start, 3, 8)])
    boxes = drawing.conv(stem, 8, 6)
    drawing.outputs.append(helper.make_tensor_value_info(boxes, TensorProto.FLOAT, ["N", 6, 16, 16]))
    model = drawing.model()
    observer = Observer(model, watched(model, quantisable_tensors(model), AUTO))
    observer.add(images(8))
    seen = observer.observation(8)
    firsts = {target: ranked_tables(model, seen, AUTO, record(8), target)[0].first for target in TARGETS}
    assert firsts["onnxruntime"] is None and firsts["tensorrt"] is not None


@pytest.fixture
def with_a_stem(sketch):
    """A network whose first layer makes channels that the second one weighs ``far`` apart.

    Images reach the first layer multiplied by ``far`` in one channel, whose weights are divided by it: one scale for
    all three leaves the others few steps.
    """

    def drawn(far: float) -> onnx.ModelProto:
        drawing = sketch()
        factors = np.ones((1, 3, 1, 1))
        factors[0, 0] = far
        tensor = drawing.node("Mul", [drawing.start, drawing.constant(factors)])
        kernel = drawing.constant(drawing.random.normal(0.0, 0.3, (16, 3, 3, 3)) / factors)
        tensor = drawing.node("Relu", [drawing.node("Conv", [tensor, kernel], kernel_shape=[3, 3], pads=[1, 1, 1, 1])])
        features = drawing.features(drawing.node("Relu", [drawing.conv(tensor, 16, 32)]))
        weight = drawing.constant(drawing.random.normal(0.0, 0.2, (32, 4)))
        drawing.node("Softmax", [drawing.node("MatMul", [features, weight], output="logits")], output="answer")
        drawing.outputs.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["N", 4]))
        return drawing.model()

    return drawn


def test_a_first_layer_that_int8_harms_is_float_by_the_graphs_figures(with_a_stem, images, record, judging) -> None:
    model = with_a_stem(far=300.0)
    table = calibrate(model, [images(8)], AUTO, record(8))
    note = table.first
    assert note is not None and not note.int8 and table.first_in_float() == note.layers
    pictures = judging(model, images(8))
    exact = results(model, pictures)
    noise = {
        kept: mean_snr_db(exact, results(quantize(model, table, "tensorrt", kept), pictures, tuple(exact)))
        for kept in ((), note.layers)
    }
    assert (note.snr_db, note.snr_db_int8) == (noise[note.layers], noise[()])
    assert note.snr_db > note.snr_db_int8 + 0.5 and note.saved > 0.01


def test_a_first_layer_that_bears_int8_keeps_it(with_a_stem, images, record) -> None:
    table = calibrate(with_a_stem(far=1.0), [images(8)], AUTO, record(8))
    assert table.first is not None and table.first.int8 and table.first_in_float() == ()
    assert table.first.snr_db <= table.first.snr_db_int8 + 0.5


def test_without_known_sizes_noise_alone_decides_of_the_first_layer(with_a_stem, images, record, monkeypatch) -> None:
    monkeypatch.setattr("edgetl.graph.end_layers.estimate_relative_latency", lambda model: None)
    kept, harmed = (calibrate(with_a_stem(far), [images(8)], AUTO, record(8)).first for far in (1.0, 300.0))
    assert kept is not None and harmed is not None
    assert (kept.saved, kept.int8, harmed.int8) == (None, True, False)
