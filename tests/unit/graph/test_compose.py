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

from edgetl.artifacts.bundle import FEATURES, IMAGES, Activation, ClassificationHead, Preprocessing
from edgetl.graph.compose import compose
from edgetl.graph.extract import extract
from edgetl.graph.parity import Session, run

Array = NDArray[np.float32]

SIZE, DIMENSION = 8, 6
PREPROCESSING = Preprocessing.square(SIZE)
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


def head(name: str, *classes: str, activation: Activation = "softmax") -> ClassificationHead:
    return ClassificationHead(
        name=name,
        classes=classes,
        activation=activation,
        l2=0.01,
        temperature=1.0,
        val_loss=0.1,
        val_accuracy=0.9,
    )


ROUND, STRAIGHT = head("round", "0", "8", "other"), head("straight", "1", "other")
ONE_VS_REST = head("one-vs-rest", "0", "8", "1", activation="sigmoid")


def weights_of(*heads: ClassificationHead) -> dict[str, Array]:
    random = np.random.default_rng(2)
    return {
        f"{one.name}.{part}": random.normal(0.0, 2.0, shape).astype(np.float32)
        for one in heads
        for part, shape in (("weight", (len(one.classes), DIMENSION)), ("bias", (len(one.classes),)))
    }


def logits(one: ClassificationHead, weights: Mapping[str, Array]) -> NDArray[np.float64]:
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


@settings(max_examples=25)
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


SECOND = head("round@cascade", "0", "8", "other").model_copy(update={"first_level": "combined"})
COMBINED = head("combined", "0", "8", "1")


def second_level_weights() -> dict[str, Array]:
    """A second level's weight has columns for the features, then for the first level's probabilities."""
    weights = weights_of(COMBINED, SECOND)
    width = DIMENSION + len(COMBINED.classes)
    weight = np.random.default_rng(3).normal(0.0, 2.0, (len(SECOND.classes), width)).astype(np.float32)
    return weights | {f"{SECOND.name}.weight": weight}


def test_a_head_beside_another_reads_the_features_and_then_its_probabilities() -> None:
    weights = second_level_weights()
    outputs = run(compose(trunk(), [COMBINED, SECOND], weights, PREPROCESSING), PIXELS)
    features = np.concatenate([run(trunk(), PIXELS)[FEATURES], outputs["combined"]], axis=1).astype(np.float64)
    expected = softmax(features @ weights[f"{SECOND.name}.weight"].T + weights[f"{SECOND.name}.bias"])
    np.testing.assert_allclose(outputs[SECOND.name], expected, atol=1e-6)


def test_a_head_reads_the_features_that_it_names(forest: onnx.ModelProto) -> None:
    """The frozen trunk and a tuned branch in one graph, a head with the same weights on each of them."""
    tuned = ROUND.model_copy(update={"name": "round@cut", "features": "tuned/features"})
    weights = weights_of(ROUND)
    weights |= {f"{tuned.name}.{kind}": weights[f"round.{kind}"] for kind in ("weight", "bias")}
    outputs = run(compose(forest, [ROUND, tuned], weights, PREPROCESSING), PIXELS)
    features = run(forest, PIXELS)
    for name, read in (("round", FEATURES), ("round@cut", "tuned/features")):
        expected = features[read].astype(np.float64) @ weights["round.weight"].T + weights["round.bias"]
        np.testing.assert_allclose(outputs[name], softmax(expected), atol=1e-6)
    assert np.abs(outputs["round"] - outputs["round@cut"]).max() > 0.01


def test_parts_one_after_the_other_say_what_the_whole_says() -> None:
    whole = compose(trunk(), [COMBINED, SECOND], second_level_weights(), PREPROCESSING)
    first, second = (
        extract(whole, ["combined", "trunk/relu"], [IMAGES]),
        extract(whole, [SECOND.name], ["trunk/relu", "combined"]),
    )
    for model in (first, second):
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version == whole.ir_version
    handed_on = Session(first).run({IMAGES: PIXELS})
    found = Session(second).run({name: handed_on[name] for name in ("trunk/relu", "combined")})
    assert list(found) == [SECOND.name]
    np.testing.assert_allclose(found[SECOND.name], run(whole, PIXELS)[SECOND.name], atol=1e-6)
    assert [node.op_type for node in second.graph.node].count("Conv") == 0, "the first level has done that"
    assert {tensor.name for tensor in second.graph.initializer} == {
        f"head/{SECOND.name}/{p}" for p in ("weight", "bias")
    }


def test_a_part_starts_from_its_inputs_in_the_order_given_and_with_any_batch() -> None:
    whole = compose(trunk(), [COMBINED, SECOND], second_level_weights(), PREPROCESSING)
    for inputs in (["trunk/relu", "combined"], ["combined", "trunk/relu"]):
        second = extract(whole, [SECOND.name], inputs)
        assert [value.name for value in second.graph.input] == inputs
        dims = [value.type.tensor_type.shape.dim[0] for value in second.graph.input]
        assert all(dim.dim_param and not dim.dim_value for dim in dims)


def test_a_part_tells_its_heads_labels_and_its_preprocessing() -> None:
    whole = compose(trunk(), [COMBINED, SECOND], second_level_weights(), PREPROCESSING)
    cases = {
        ("combined", "trunk/relu"): {"combined": ["0", "8", "1"]},
        (SECOND.name,): {SECOND.name: [*SECOND.classes]},
    }
    for outputs, labels in cases.items():
        notes = {entry.key: entry.value for entry in extract(whole, outputs, [IMAGES]).metadata_props}
        assert json.loads(notes["edgetl.labels"]) == labels
        assert Preprocessing.model_validate_json(notes["edgetl.input"]) == PREPROCESSING
        assert len(notes) == 2


def test_a_part_leaves_the_whole_as_it_was_and_is_the_same_bytes_again() -> None:
    whole = compose(trunk(), [COMBINED, SECOND], second_level_weights(), PREPROCESSING)
    before = whole.SerializeToString(deterministic=True)
    one, two = (extract(whole, ["combined"], [IMAGES]).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert whole.SerializeToString(deterministic=True) == before
