from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetl.artifacts.bundle import FEATURES, IMAGES, Activation, Head, Preprocessing
from edgetl.graph.compose import compose
from edgetl.graph.parity import run

Array = NDArray[np.float32]

SIZE, DIMENSION = 8, 6
PREPROCESSING = Preprocessing(image_size=SIZE)
PIXELS = np.random.default_rng(1).random((4, 3, SIZE, SIZE), dtype=np.float32)


def trunk() -> onnx.ModelProto:
    """One convolution and pooling, as `export_trunk` names things."""
    weight = np.random.default_rng(0).normal(0.0, 0.5, (DIMENSION, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [IMAGES, "trunk/weight"], ["trunk/conv"], kernel_shape=[3, 3], name="trunk/conv"),
        helper.make_node("Relu", ["trunk/conv"], ["trunk/relu"], name="trunk/relu"),
        helper.make_node("GlobalAveragePool", ["trunk/relu"], ["trunk/pooled"], name="trunk/pool"),
        helper.make_node("Flatten", ["trunk/pooled"], [FEATURES], name="trunk/flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "trunk",
        [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", DIMENSION])],
        [numpy_helper.from_array(weight, "trunk/weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def head(name: str, *classes: str, activation: Activation = "softmax") -> Head:
    return Head(
        name=name,
        classes=classes,
        activation=activation,
        regularisation=0.01,
        temperature=1.0,
        val_loss=0.1,
        val_accuracy=0.9,
    )


ROUND, STRAIGHT = head("round", "0", "8", "other"), head("straight", "1", "other")
ONE_VS_REST = head("one-vs-rest", "0", "8", "1", activation="sigmoid")


def weights_of(*heads: Head) -> dict[str, Array]:
    random = np.random.default_rng(2)
    return {
        f"{one.name}.{part}": random.normal(0.0, 2.0, shape).astype(np.float32)
        for one in heads
        for part, shape in (("weight", (len(one.classes), DIMENSION)), ("bias", (len(one.classes),)))
    }


def logits(one: Head, weights: Mapping[str, Array]) -> NDArray[np.float64]:
    features = run(trunk(), PIXELS)[FEATURES].astype(np.float64)
    result: NDArray[np.float64] = features @ weights[f"{one.name}.weight"].T + weights[f"{one.name}.bias"]
    return result


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def test_outputs_are_softmax_and_sigmoid_of_the_features() -> None:
    weights = weights_of(ROUND, STRAIGHT, ONE_VS_REST)
    outputs = run(compose(trunk(), [ROUND, STRAIGHT, ONE_VS_REST], weights, PREPROCESSING), PIXELS)
    assert list(outputs) == ["round", "straight", "one-vs-rest"]
    for one in (ROUND, STRAIGHT):
        np.testing.assert_allclose(outputs[one.name], softmax(logits(one, weights)), atol=1e-6)
    sigmoid = 1.0 / (1.0 + np.exp(-logits(ONE_VS_REST, weights)))
    np.testing.assert_allclose(outputs["one-vs-rest"], sigmoid, atol=1e-6)


def test_shared_says_what_the_specialised_graphs_say() -> None:
    weights = weights_of(ROUND, STRAIGHT)
    shared = run(compose(trunk(), [ROUND, STRAIGHT], weights, PREPROCESSING), PIXELS)
    for one in (ROUND, STRAIGHT):
        alone = run(compose(trunk(), [one], weights, PREPROCESSING), PIXELS)
        np.testing.assert_allclose(shared[one.name], alone[one.name], atol=1e-6)


def test_the_trunk_is_in_the_graph_once_and_the_one_given_is_left_alone() -> None:
    given_trunk = trunk()
    before = given_trunk.SerializeToString(deterministic=True)
    composed = compose(given_trunk, [ROUND, STRAIGHT], weights_of(ROUND, STRAIGHT), PREPROCESSING)
    assert given_trunk.SerializeToString(deterministic=True) == before
    assert [node.op_type for node in composed.graph.node].count("Conv") == 1


def test_shapes_and_names_are_what_onnx_infers() -> None:
    composed = compose(trunk(), [ROUND, ONE_VS_REST], weights_of(ROUND, ONE_VS_REST), PREPROCESSING)
    onnx.checker.check_model(composed, full_check=True)
    shapes = {
        output.name: [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
        for output in composed.graph.output
    }
    assert shapes == {"round": ["N", 3], "one-vs-rest": ["N", 3]}
    names = [node.name for node in composed.graph.node]
    assert len(set(names)) == len(names)


def test_labels_and_preprocessing_travel_in_the_file() -> None:
    composed = compose(trunk(), [ROUND, STRAIGHT], weights_of(ROUND, STRAIGHT), PREPROCESSING)
    notes = {entry.key: entry.value for entry in composed.metadata_props}
    assert json.loads(notes["edgetl.labels"]) == {"round": ["0", "8", "other"], "straight": ["1", "other"]}
    assert Preprocessing.model_validate_json(notes["edgetl.input"]) == PREPROCESSING


@pytest.mark.parametrize("name", ["Verkehrszeichen größer", "标志", "🚦", "trunk", "a.b weight", "round'); --"])
def test_a_head_may_have_any_name_that_a_group_may_have(name: str) -> None:
    check_name(name)


@settings(max_examples=25, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='/\\:*?"<>|'), min_size=1))
def test_a_head_may_have_any_printable_name(name: str) -> None:
    if name != IMAGES:
        check_name(name)


def check_name(name: str) -> None:
    odd = head(name, "größer als", "other")
    weights = weights_of(odd, STRAIGHT)
    composed = compose(trunk(), [odd, STRAIGHT] if name != STRAIGHT.name else [odd], weights, PREPROCESSING)
    onnx.checker.check_model(composed)
    np.testing.assert_allclose(run(composed, PIXELS)[name], softmax(logits(odd, weights)), atol=1e-6)
    notes = {entry.key: entry.value for entry in composed.metadata_props}
    assert json.loads(notes["edgetl.labels"])[name] == ["größer als", "other"]
