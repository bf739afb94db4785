"""Parts of a graph, and where a branch leaves its trunk."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import FEATURES, IMAGES
from edgetl.graph.extract import extract, frontier
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.parity import Session, run

Array = NDArray[np.float32]

SIZE, DIMENSION = 8, 6
PIXELS = np.random.default_rng(1).random((4, 3, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize(
    ("network", "starts"),
    [
        ("tuned", ("trunk/cut",)),
        ("truncated", ("trunk/cut",)),
        ("from images", (IMAGES,)),
        ("trunk", (FEATURES,)),
    ],
)
def test_a_branch_starts_where_it_leaves_the_trunk(
    forest: onnx.ModelProto, network: str, starts: tuple[str, ...]
) -> None:
    assert frontier(forest, [f"{network}/features"], [FEATURES]) == starts


def test_a_branch_that_tuning_left_as_it_was_has_nothing_of_its_own_to_compute(forest: onnx.ModelProto) -> None:
    model = forest
    (start,) = frontier(model, ["untuned/features"], [FEATURES])
    outputs = [node.output[0] for node in model.graph.node]
    copies = [node for node in model.graph.node if "untuned/features" in node.output]
    assert start == FEATURES
    assert [node.op_type for node in copies] == ["Identity"] and "untuned/cut" not in outputs


_OPERATORS = ("Add", "Mul", "Max", "Relu", "Neg")


@st.composite
def _networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, str, str]:
    """A random graph of up to twelve nodes, and two of its tensors."""
    tensors, nodes = [IMAGES], []
    for number in range(draw(st.integers(1, 12))):
        op = draw(st.sampled_from(_OPERATORS))
        arity = 1 if op in {"Relu", "Neg"} else 2
        operands = [draw(st.sampled_from([*tensors, "constant"])) for _ in range(arity)]
        operands[0] = draw(st.sampled_from(tensors))
        nodes.append(helper.make_node(op, operands, [f"t{number}"], name=f"n{number}"))
        tensors.append(f"t{number}")
    value = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 2, 2]) for name in tensors}
    constant = numpy_helper.from_array(np.full((1, 3, 1, 1), 0.5, dtype=np.float32), "constant")
    graph = helper.make_graph(nodes, "random", [value[IMAGES]], [value[name] for name in tensors[1:]], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wanted, known = draw(st.sampled_from(tensors[1:])), draw(st.sampled_from(tensors[1:]))
    return model, wanted, known


@settings(max_examples=60)
@given(_networks())
def test_what_starts_at_the_frontier_is_the_rest_of_the_way(drawn: tuple[onnx.ModelProto, str, str]) -> None:
    model, wanted, known = drawn
    pixels = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32)
    tensors = {IMAGES: pixels, **run(model, pixels)}
    starts = frontier(model, [wanted], [known])
    # What the way to `known` computes is there already; nothing of it is computed once more.
    there = {name for node in extract(model, [known], [IMAGES]).graph.node for name in node.output} | {IMAGES}
    assert set(starts) <= there
    assert "constant" not in starts
    rest = extract(model, [wanted], starts)
    assert not {name for node in rest.graph.node for name in node.output} & there
    if rest.graph.node:
        np.testing.assert_array_equal(
            Session(rest).run({name: tensors[name] for name in starts})[wanted], tensors[wanted]
        )
    else:
        assert starts == (wanted,)


def tokens(heads: int) -> onnx.ModelProto:
    """A network on tokens: maps made flat by a shape that is computed, and all images' tokens in one matrix."""
    nodes = [
        helper.make_node("Conv", [IMAGES, "patch"], ["maps"], strides=[4, 4]),
        helper.make_node("Shape", ["maps"], ["shape"], start=0, end=2),
        helper.make_node("Concat", ["shape", "minus one"], ["flat"], axis=0),
        helper.make_node("Reshape", ["maps", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("Reshape", ["tokens", "matrix"], ["all tokens"]),
        helper.make_node("MatMul", ["all tokens", "mixing"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "row"], ["features"]),
    ]
    random = np.random.default_rng(heads)
    constants = {
        "patch": np.random.default_rng(0).normal(0.0, 0.5, (DIMENSION, 3, 4, 4)).astype(np.float32),
        "mixing": random.normal(0.0, 0.5, (DIMENSION, 2)).astype(np.float32),
        "minus one": np.array([-1]),
        "matrix": np.array([-1, DIMENSION]),
        "row": np.array([-1, 8]),
    }
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_is_handed_on_holds_a_row_for_each_image() -> None:
    """A second level runs on some images: a matrix of all images' tokens could not be told apart for it."""
    model = fuse({"trunk": tokens(1), "tuned": tokens(2)}).model
    assert frontier(model, ["tuned/features"], [FEATURES]) == ("trunk/tokens",)


def test_the_inputs_of_a_part_have_the_shape_that_one_image_has_there() -> None:
    """What is measured without images takes its inputs' shapes from the graph."""
    model = fuse({"trunk": tokens(1), "tuned": tokens(2)}).model
    (value,) = extract(model, ["tuned/features"], ["trunk/tokens"]).graph.input
    batch, *row = value.type.tensor_type.shape.dim
    assert [dim.dim_value for dim in row] == [4, DIMENSION]
    assert not batch.dim_value
