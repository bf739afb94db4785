"""That a fused graph is believed only after it was run against its parts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.fusion.verify import random_inputs, tolerance, verify
from edgetl.graph.model import save_model
from edgetl.graph.quantize import quantize


def graph(nodes, inputs, outputs, initializers=()):
    built = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def value(name, kind=TensorProto.FLOAT, shape=("N", 3, 8, 8)):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def checked(tmp_path):
    """Fuse models, change the result, and verify it on two batches."""

    def checked(models, change=lambda model: None, allowed=1e-4):
        fused = fuse(models)
        change(fused.model)
        save_model(fused.model, tmp_path / "fused.onnx")
        paths = {name: tmp_path / f"{name}.onnx" for name in models}
        for name, path in paths.items():
            save_model(models[name], path)
        batches = [random_inputs(fused.model, 2, seed) for seed in range(2)]
        return verify(tmp_path / "fused.onnx", paths, fused.tensors, batches, allowed)

    return checked


def test_a_faithful_graph_differs_by_nothing(network, checked):
    found = checked({"a": network, "b": network})
    assert (found.difference, found.wrong, found.random) == (0.0, None, ())


def test_a_weight_that_changed_is_noticed_in_the_output_that_needs_it(network, sketch, checked):
    plan = sketch()
    plan.head("vehicles", plan.features(plan.conv(plan.start, 3, 4)), 4)

    def spoil(model):
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name.startswith("b/"))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.1), tensor.name))

    found = checked({"a": network, "b": plan.model()}, spoil)
    assert found.wrong == "b/vehicles"
    assert found.difference > 1e-3
    assert checked({"a": network, "b": plan.model()}, spoil, allowed=1.0).wrong is None


def test_outputs_that_depend_on_chance_are_told_and_not_compared(checked):
    nodes = [
        helper.make_node("RandomNormalLike", ["images"], ["noise"]),
        helper.make_node("Add", ["images", "noise"], ["noisy"]),
        helper.make_node("Relu", ["images"], ["plain"]),
    ]
    model = graph(nodes, [value("images")], [value("noisy"), value("plain")])
    found = checked({"a": model, "b": model})
    assert (found.difference, found.wrong, found.random) == (0.0, None, ("a/noisy", "b/noisy"))


def test_nan_is_never_equal(checked):
    model = graph(
        [helper.make_node("Neg", ["images"], ["n"]), helper.make_node("Log", ["n"], ["out"])],
        [value("images")],
        [value("out")],
    )
    found = checked({"a": model, "b": model})
    assert (found.difference, found.wrong) == (np.inf, "a/out")


def test_every_input_gets_numbers_of_its_type_and_shape():
    kinds = {
        "images": value("images"),
        "half": value("half", TensorProto.FLOAT16, (5,)),
        "tokens": value("tokens", TensorProto.INT64, ("N", 7)),
        "mask": value("mask", TensorProto.BOOL, (2, 2)),
    }
    model = graph([], kinds.values(), [])
    found = random_inputs(model, 4, seed=0)
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "images": ("float32", (4, 3, 8, 8)),
        "half": ("float16", (5,)),
        "tokens": ("int64", (4, 7)),
        "mask": ("bool", (2, 2)),
    }
    assert 0.0 <= found["images"].min() < found["images"].max() < 1.0
    assert set(found["tokens"].ravel().tolist()) == {0, 1}
    again = random_inputs(model, 4, seed=0)
    assert all(np.array_equal(array, again[name]) for name, array in found.items())


def test_images_of_any_size_and_of_bytes_get_random_ones():
    model = graph([], [value("images", TensorProto.UINT8, ("N", 3, "H", "W"))], [])
    found = random_inputs(model, 1, seed=0)["images"]
    assert (found.shape, found.max() > 200) == ((1, 3, 224, 224), True)


@pytest.mark.parametrize(
    "unfit", [value("x", TensorProto.STRING, (2,)), value("x", TensorProto.FLOAT, (2, "L")), value("x", shape=None)]
)
def test_inputs_that_nothing_can_be_drawn_for_are_refused(unfit):
    with pytest.raises(EdgetlError, match=r"input 'x' is .* which random images cannot be made for"):
        random_inputs(graph([], [value("images"), unfit], []), 1, seed=0)


def test_lower_precision_is_allowed_more_rounding(network, table_for):
    assert tolerance([network]) < tolerance([network, to_fp16(network)])
    assert tolerance([to_fp16(network)]) < tolerance([quantize(network, table_for(network), "tensorrt")])


def test_outputs_that_are_no_numbers_are_refused(checked):
    model = graph(
        [helper.make_node("SequenceConstruct", ["images"], ["out"])],
        [value("images")],
        [helper.make_tensor_sequence_value_info("out", TensorProto.FLOAT, None)],
    )
    onnx.checker.check_model(model)
    with pytest.raises(EdgetlError, match="is no tensor of numbers"):
        checked({"a": model, "b": model})
