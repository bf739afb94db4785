"""Fusing: what is computed once, what it is called, and that nothing else changes."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgetl.errors import EdgetlError
from edgetl.graph import parity
from edgetl.graph.extract import extract
from edgetl.graph.fp16 import to_fp16
from edgetl.graph.fusion.divergence import divergences
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.fusion.recalibrate import scale_conflicts
from edgetl.graph.model import load_model, model_bytes
from edgetl.graph.quantize import quantize

CHANNELS, SIZE = 4, 8


def run(model, feeds, optimised=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_same_outputs(models, fused, feeds, optimised=True, rtol=0.0):
    """Equal to the last bit, unless told otherwise."""
    onnx.checker.check_model(fused, full_check=True)
    together = run(fused, feeds, optimised)
    alone = {
        f"{prefix}/{name}": value
        for prefix, model in models.items()
        for name, value in run(model, feeds, optimised).items()
    }
    assert list(together) == list(alone)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol, rtol, err_msg=name)


def pictures(count=2, size=SIZE):
    return {"images": np.random.default_rng(0).random((count, 3, size, size), dtype=np.float32)}


# --- random graphs -------------------------------------------------------------------------------------------------
# A step is (operator, two earlier values, which weights). All values are N x 4 x 8 x 8, so that any step fits any.

OPERATORS = ["Conv", "Relu", "Sigmoid", "Add", "Mul", "Max", "MaxPool", "Concat", "BatchNormalization", "LeakyRelu"]
STEP = st.tuples(st.sampled_from(OPERATORS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 1))
STEPS = st.lists(STEP, max_size=7)


@dataclass(frozen=True)
class Plan:
    """A graph as its steps and which values come out."""

    steps: tuple
    outputs: tuple

    def expressions(self):
        """What each value is, spelled out down to the image: equal where the values are certain to be."""
        values = [("Conv", "images", None, 0)]
        for op, a, b, seed in self.steps:
            first, second = values[a % len(values)], values[b % len(values)]
            values.append(
                (
                    op,
                    first,
                    second if op in {"Add", "Mul", "Max", "Concat"} else None,
                    seed if op in {"Conv", "BatchNormalization", "LeakyRelu", "Concat"} else None,
                )
            )
        return values

    def chosen(self):
        values = self.expressions()
        return [values[index % len(values)] for index in self.outputs]


@st.composite
def plans(draw):
    """Two or three graphs that begin alike."""
    trunk = draw(STEPS)
    outputs = st.lists(st.integers(0, 20), min_size=1, max_size=3)
    return [
        Plan((*trunk[: draw(st.integers(0, len(trunk)))], *draw(STEPS)), tuple(draw(outputs)))
        for _ in range(draw(st.integers(2, 3)))
    ]


def expressions_behind(wanted):
    found = set()
    waiting = list(wanted)
    while waiting:
        expression = waiting.pop()
        if isinstance(expression, tuple) and expression not in found:
            found.add(expression)
            waiting.extend(expression[1:3])
    return found


class Renderer:
    """Writes a plan as a graph in one of the many ways that mean the same, as exporters do."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.nodes, self.initializers, self.values = [], [], {"images": "images"}

    def name(self):
        return f"t{self.random.getrandbits(40):x}"

    def constant(self, seed, shape, positive=False):
        value = np.random.default_rng([seed, *shape]).normal(0, 0.5, shape).astype(np.float32)
        value = np.abs(value) + np.float32(0.5) if positive else value
        name, way = self.name(), self.random.randrange(3)
        if way == 0:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
            return name
        tensor = numpy_helper.from_array(value, name)
        if way == 1:  # the same numbers, stored in another field
            tensor = helper.make_tensor(name, TensorProto.FLOAT, shape, value.ravel())
        self.initializers.append(tensor)
        return name

    def value(self, expression):
        if expression not in self.values:
            op, first, second, seed = expression
            inputs = [self.value(item) for item in (first, second) if item is not None]
            if self.random.randrange(4) == 0:
                inputs[0] = self.node("Identity", [inputs[0]])
            self.values[expression] = self.layer(op, inputs, seed, 3 if first == "images" else CHANNELS)
        return self.values[expression]

    def layer(self, op, inputs, seed, channels):
        if op == "Conv":
            weight, bias = self.constant(seed, (CHANNELS, channels, 3, 3)), self.constant(seed, (CHANNELS,))
            return self.node(op, [*inputs, weight, bias], {"pads": [1] * 4}, {"group": 1, "auto_pad": "NOTSET"})
        if op == "Concat":
            return self.layer("Conv", [self.node(op, inputs, {"axis": 1})], seed, 2 * CHANNELS)
        if op == "BatchNormalization":
            parameters = [self.constant(seed + 10 * slot, (CHANNELS,), positive=True) for slot in range(4)]
            return self.node(op, [*inputs, *parameters], {}, {"epsilon": 1e-5, "training_mode": 0, "momentum": 0.9})
        if op == "MaxPool":
            return self.node(op, inputs, {"kernel_shape": [3, 3], "pads": [1] * 4}, {"ceil_mode": 0})
        if op == "LeakyRelu":
            return self.node(op, inputs, {"alpha": 0.1 + seed})
        return self.node(op, inputs)

    def node(self, op, inputs, attributes=None, defaults=None):
        """Attributes in any order; those that say what holds by default are there or not."""
        chosen = [item for item in (defaults or {}).items() if self.random.randrange(2)]
        items = [*(attributes or {}).items(), *chosen]
        self.random.shuffle(items)
        output = self.name()
        self.nodes.append(helper.make_node(op, inputs, [output], name=self.name(), **dict(items)))
        return output

    def model(self, plan):
        outputs = []
        for number, expression in enumerate(plan.chosen()):
            name = f"out{number}"
            self.nodes.append(helper.make_node("Identity", [self.value(expression)], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CHANNELS, SIZE, SIZE]))
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])]
        graph = helper.make_graph(self.sorted_nodes(), "random", inputs, outputs, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    def sorted_nodes(self):
        """One of the topological orders, drawn at random."""
        waiting, order = list(self.nodes), []
        made = {"images", *(tensor.name for tensor in self.initializers)}
        while waiting:
            node = self.random.choice([node for node in waiting if made.issuperset(node.input)])
            waiting.remove(node)
            made.update(node.output)
            order.append(node)
        return order


def rendered(found, seed=0):
    return {f"m{number}": Renderer(seed + number).model(plan) for number, plan in enumerate(found)}


def weights(model):
    return [numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer]


def layers(model):
    return [node for node in model.graph.node if node.op_type != "Identity"]


@settings(max_examples=60)
@given(found=plans(), seed=st.integers(0, 1000))
def test_random_graphs_keep_their_outputs_and_share_all_that_is_equal(found, seed):
    models = rendered(found, seed)
    fused = fuse(models).model
    assert_same_outputs(models, fused, pictures(), optimised=False)
    # ONNX Runtime folds more into a Conv that nobody else reads, and sums in another order for it.
    assert_same_outputs(models, fused, pictures(), rtol=1e-4)
    distinct = expressions_behind(expression for plan in found for expression in plan.chosen())
    concatenations = {expression[1:3] for expression in distinct if expression[0] == "Concat"}
    assert len(layers(fused)) == len(distinct) + len(concatenations)  # a Conv stands behind each


@settings(max_examples=25)
@given(found=plans(), seed=st.integers(0, 1000))
def test_what_is_fused_already_stays_as_it_is(found, seed):
    once = fuse(rendered(found, seed)).model
    again = fuse({"x": once}).model
    twice = fuse({"x": once, "y": once})
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in once.graph.node]
    assert weights(again) == weights(once)
    assert len(twice.model.graph.node) == len(once.graph.node) + len(once.graph.output)
    layers_of_both = zip(twice.model.graph.node, twice.owners, strict=True)
    assert all(owners == ("x", "y") for node, owners in layers_of_both if node.op_type != "Identity")


@settings(max_examples=25)
@given(found=plans(), seed=st.integers(0, 1000))
def test_the_order_of_the_graphs_changes_nothing_but_names(found, seed):
    models = rendered(found, seed)
    one, other = fuse(models).model, fuse(dict(reversed(models.items()))).model
    assert sorted(node.op_type for node in one.graph.node) == sorted(node.op_type for node in other.graph.node)
    assert sorted(weights(one)) == sorted(weights(other))
    results, reversed_results = run(one, pictures()), run(other, pictures())
    assert results.keys() == reversed_results.keys()
    for name, value in results.items():
        np.testing.assert_allclose(value, reversed_results[name], rtol=1e-4, atol=1e-4)


# --- one thing at a time -------------------------------------------------------------------------------------------


def with_heads(sketch, name="vehicles", seed=1, classes=3, deep=True):
    """The same trunk every time; the head is drawn by ``seed``."""
    plan = sketch()
    tensor = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
    tensor = plan.node("Relu", [plan.conv(tensor, 4, 4)]) if deep else tensor
    plan.random = np.random.default_rng(seed)
    plan.head(name, plan.features(tensor), 4, classes)
    return plan.model()


def test_specialists_on_one_trunk_become_one_trunk_with_their_heads(sketch):
    models = {"a": with_heads(sketch), "b": with_heads(sketch, seed=2, classes=5), "c": with_heads(sketch, seed=3)}
    fused = fuse(models)
    assert_same_outputs(models, fused.model, pictures(size=16))
    assert [value.name for value in fused.model.graph.input] == ["images"]
    kinds = [(node.op_type, owners) for node, owners in zip(fused.model.graph.node, fused.owners, strict=True)]
    trunk = ["Sub", "Div", "Conv", "Relu", "Conv", "Relu", "GlobalAveragePool", "Flatten"]
    assert kinds[:8] == [(op, ("a", "b", "c")) for op in trunk]
    assert kinds[8:] == [(op, (prefix,)) for prefix in "abc" for op in ("Gemm", "Softmax")]
    assert fused.tensors["b"]["features"] == "a/features"


def test_the_same_graphs_give_the_same_bytes(sketch):
    one, other = (fuse({"a": with_heads(sketch), "b": with_heads(sketch, seed=2)}).model for _ in range(2))
    assert model_bytes(one) == model_bytes(other)


def test_names_carry_the_prefix_of_the_first_graph_that_has_them(sketch):
    fused = fuse({"a": with_heads(sketch), "b": with_heads(sketch, name="signs", seed=2)}).model
    assert [value.name for value in fused.graph.output] == ["a/vehicles", "b/signs"]
    made = {name for node in fused.graph.node for name in node.output}
    assert {"a/features", "a/relu_3"} < made
    assert all(name.startswith(("a/", "b/")) for name in made)
    assert all(tensor.name.startswith(("a/", "b/")) for tensor in fused.graph.initializer)


def test_labels_follow_their_outputs_and_the_preprocessing_is_kept(sketch):
    def noted(labels):
        model = with_heads(sketch)
        notes = {"edgetl.labels": json.dumps({"vehicles": labels}), "edgetl.input": '{"image_size":16}', "who": labels}
        helper.set_model_props(model, {key: str(value) for key, value in notes.items()})
        return model

    fused = fuse({"a": noted("x"), "b": noted("y")}).model
    notes = {entry.key: entry.value for entry in fused.metadata_props}
    assert json.loads(notes.pop("edgetl.labels")) == {"a/vehicles": "x", "b/vehicles": "y"}
    assert notes == {"edgetl.input": '{"image_size":16}', "a/who": "x", "b/who": "y"}


@pytest.mark.parametrize("labels", ["{", "[]", "[" * 100000])
def test_damaged_labels_are_refused(labels, sketch):
    model = with_heads(sketch)
    helper.set_model_props(model, {"edgetl.labels": labels})
    with pytest.raises(EdgetlError, match=r"edgetl\.labels of b is damaged"):
        fuse({"a": with_heads(sketch), "b": model})


def test_images_prepared_in_two_ways_are_refused_with_both(sketch):
    models = {name: with_heads(sketch) for name in "ab"}
    for model, way in zip(models.values(), ["bilinear", "bicubic"], strict=True):
        helper.set_model_props(model, {"edgetl.input": way})
    with pytest.raises(EdgetlError, match="prepared differently: bilinear for a, bicubic for b"):
        fuse(models)


def test_inputs_that_mean_the_same_are_joined_whatever_their_names(sketch):
    other = with_heads(sketch, seed=2)
    other.graph.input[0].name = other.graph.node[0].input[0] = "x"
    other.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    other.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    fused = fuse({"a": with_heads(sketch), "b": other}).model
    assert [value.name for value in fused.graph.input] == ["images"]
    assert [value.type.tensor_type.shape.dim[0].dim_param for value in fused.graph.output] == ["N", "N"]
    assert len(layers(fused)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kind: setattr(kind.shape.dim[2], "dim_value", 32), r"FLOAT \[\?, 3, 16, 16\] in a, .*32, 16\] in b"),
        (lambda kind: setattr(kind.shape.dim[0], "dim_value", 1), r"\[\?, 3, 16, 16\] in a, FLOAT \[1, 3"),
        (lambda kind: setattr(kind, "elem_type", TensorProto.FLOAT16), "FLOAT .* in a, FLOAT16 "),
    ],
)
def test_inputs_of_another_size_batch_or_type_are_refused_with_both(change, message, sketch):
    other = with_heads(sketch)
    change(other.graph.input[0].type.tensor_type)
    with pytest.raises(EdgetlError, match=message):
        fuse({"a": with_heads(sketch), "b": other})


def test_inputs_beside_the_images_are_joined_by_name():
    def model(second):
        nodes = [helper.make_node("Relu", ["images"], ["r"]), helper.make_node("Mul", ["r", second], ["y"])]
        inputs = [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),
            helper.make_tensor_value_info(second, TensorProto.FLOAT, [1]),
        ]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])]
        return helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )

    same = fuse({"a": model("gain"), "b": model("gain")}).model
    assert [value.name for value in same.graph.input] == ["images", "gain"]
    assert [node.op_type for node in same.graph.node] == ["Relu", "Mul", "Identity"]
    other = fuse({"a": model("gain"), "b": model("bias")}).model
    assert [value.name for value in other.graph.input] == ["images", "gain", "bias"]
    assert [node.op_type for node in other.graph.node] == ["Relu", "Mul", "Mul"]


def test_an_output_that_another_graph_computes_inside_is_no_copy(sketch):
    deep, features = with_heads(sketch), extract(with_heads(sketch), ["features"])
    fused = fuse({"a": deep, "b": features})
    assert_same_outputs({"a": deep, "b": features}, fused.model, pictures(size=16))
    assert "Identity" not in {node.op_type for node in fused.model.graph.node}
    assert fused.tensors["a"]["features"] == "b/features"


def test_an_output_that_is_an_input_or_a_constant_is_a_copy():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["same"]), helper.make_node("Identity", ["w"], ["fixed"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),
            helper.make_tensor_value_info("fixed", TensorProto.FLOAT, [2]),
        ],
        [numpy_helper.from_array(np.ones(2, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    models = {"a": model, "b": model}
    assert_same_outputs(models, fuse(models).model, pictures())


def spoken(body, outputs, opset=17, ir_version=8):
    """A model in ONNX's own notation, on images N x 3 x 8 x 8."""
    imports = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
    returns = ", ".join(f"float[N,3,8,8] {name}" for name in outputs)
    model = onnx.parser.parse_model(f"{imports} g (float[N,3,8,8] images) => ({returns}) {{ {body} }}")
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize(
    "layer",
    [
        "RandomNormalLike <seed = 1.0> (x)",
        "RandomUniformLike (x)",
        "Bernoulli (x)",
        "Dropout <seed = 1> (x, ratio, training)",
    ],
)
def test_random_layers_are_never_merged(layer):
    constants = "ratio = Constant <value_float = 0.5> () training = Constant <value = bool {1}> ()"
    model = spoken(f"x = Sigmoid (images) {constants} y = {layer} z = {layer} out = Add (y, z)", ["out"])
    fused = fuse({"a": model, "b": model})
    kinds = [node.op_type for node in fused.model.graph.node]
    assert kinds.count("Sigmoid") == 1
    assert kinds.count(layer.split()[0]) == 4
    onnx.checker.check_model(fused.model)


@pytest.mark.parametrize(("opset", "merged"), [(6, False), (10, True), (17, True)])
def test_dropout_is_merged_where_it_is_off(opset, merged):
    model = spoken("x = Sigmoid (images) y = Dropout (x) out = Sqrt (y)", ["out"], opset=opset)
    kinds = [node.op_type for node in fuse({"a": model, "b": model}).model.graph.node]
    assert kinds.count("Dropout") == kinds.count("Sqrt") == (1 if merged else 2)


BRANCHES = """
    x = Sigmoid (images)
    c = Constant <value = bool {1}> ()
    k = Constant <value = float {2.0}> ()
    out = If (c) <
        then_branch = t () => (float[N,3,8,8] y) { x2 = Mul (x, k) y = Sqrt (x2) },
        else_branch = e () => (float[N,3,8,8] y) { y = Neg (images) }
    >
"""


def test_control_flow_is_left_alone_and_still_reads_what_it_captured():
    models = {"a": spoken(BRANCHES, ["out"]), "b": spoken(BRANCHES, ["out"])}
    fused = fuse(models).model
    assert_same_outputs(models, fused, pictures())
    assert sorted(node.op_type for node in fused.graph.node) == ["If", "If", "Sigmoid"]
    assert fuse({"x": fused}).model.graph.node[1].op_type == "If"


def test_opsets_are_converted_to_the_highest(sketch):
    old, new = with_heads(sketch), with_heads(sketch, seed=2)
    old.opset_import[0].version = 13
    fused = fuse({"a": old, "b": new}).model
    assert_same_outputs({"a": old, "b": new}, fused, pictures(size=16))
    assert [(item.domain, item.version) for item in fused.opset_import] == [("", 17)]
    assert len(layers(fused)) == 12


def test_opsets_that_cannot_be_converted_are_refused_with_both():
    old = spoken("out = Tile (images, images, images)", ["out"], opset=1)
    with pytest.raises(EdgetlError, match="a uses opset 1 and b opset 17, and it cannot be converted"):
        fuse({"a": old, "b": spoken("out = Relu (images)", ["out"])})


def test_local_functions_are_inlined():
    text = """
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[N,3,8,8] images) => (float[N,3,8,8] out) { out = own.twice (images) }
    <domain: "own", opset_import: ["" : 17]>
    twice (x) => (y) { y = Add (x, x) }
    """
    model = onnx.parser.parse_model(text)
    plain = spoken("out = Add (images, images)", ["out"])
    fused = fuse({"a": model, "b": plain})
    assert_same_outputs({"a": model, "b": plain}, fused.model, pictures())
    assert [node.op_type for node in fused.model.graph.node] == ["Add", "Identity"]


def test_weights_listed_as_inputs_are_constants_and_the_ir_version_allows_it(sketch):
    old = with_heads(sketch)
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    old.ir_version = 3
    onnx.checker.check_model(old)
    fused = fuse({"a": old, "b": old}).model
    assert fused.ir_version == 4
    assert_same_outputs({"a": old, "b": old}, fused, pictures(size=16))
    assert [value.name for value in fused.graph.input] == ["images"]


@settings(max_examples=60)
@example(position=0.96484375, byte=127, quantised=False)  # a weight becomes a signalling NaN
@given(position=st.floats(0.0, 0.999), byte=st.integers(0, 255), quantised=st.booleans())
def test_a_damaged_file_is_fused_or_refused(position, byte, quantised, network, table_for, tmp_path):
    whole = quantize(network, table_for(network), "tensorrt") if quantised else network
    content = bytearray(model_bytes(whole))
    content[int(position * len(content))] = byte
    (tmp_path / "m.onnx").write_bytes(content)
    try:
        models = {"whole": whole, "damaged": load_model(tmp_path / "m.onnx")}
        for look in (fuse, divergences, scale_conflicts):
            look(models)
    except EdgetlError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("precision", ["fp16", "tensorrt", "onnxruntime"])
def test_prepared_graphs_share_their_trunk(precision, sketch, table_for):
    def prepared(seed):
        model = with_heads(sketch, seed=seed)
        return to_fp16(model) if precision == "fp16" else quantize(model, table_for(model), precision)

    models = {"a": prepared(1), "b": prepared(2)}
    fused = fuse(models)
    assert_same_outputs(models, fused.model, pictures(size=16))
    alone = [node.op_type for node, owners in zip(fused.model.graph.node, fused.owners, strict=True) if len(owners) < 2]
    assert alone == ["Gemm", "Softmax"] * 2


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_quantised_layers_with_equal_weights_and_other_inputs_keep_their_own(target, sketch, table_for, images):
    """ONNX Runtime's exact kernels make their own copies of weights and zero points, named after the original."""

    def model(first):
        plan = sketch()
        plan.random = np.random.default_rng(first)
        tensor = plan.node("Relu", [plan.conv(plan.start, 3, 4)])
        plan.random = np.random.default_rng(9)
        tensor = plan.node("Relu", [plan.conv(tensor, 4, 4)])
        plan.head("vehicles", plan.features(plan.node("Relu", [plan.conv(tensor, 4, 4)])), 4)
        return quantize(plan.model(), table_for(plan.model()), target)

    models = {"a": model(1), "b": model(2)}
    fused = fuse(models).model
    onnx.checker.check_model(fused, full_check=True)
    together = parity.run(fused, images(2))
    for prefix, alone in models.items():
        np.testing.assert_array_equal(together[f"{prefix}/vehicles"], parity.run(alone, images(2))["vehicles"])


def test_tensors_of_another_type_or_shape_are_other_weights():
    def model(value):
        body = spoken("v = Constant <value_float = 1.0> () w = Cast <to = 1> (v) out = Add (images, w)", ["out"])
        body.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))
        return body

    values = [np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros((1, 1), np.float32), -np.zeros(1, np.float32)]
    fused = fuse({f"m{number}": model(value) for number, value in enumerate(values)}).model
    assert len(fused.graph.initializer) == 4


@pytest.mark.parametrize(
    ("constant", "stored"),
    [
        ("Constant <value_float = 0.5> ()", np.float32(0.5)),
        ("Constant <value_floats = [0.5, 1.0]> ()", np.array([0.5, 1.0], np.float32)),
        ("Constant <value = float[2] {0.5, 1.0}> ()", np.array([0.5, 1.0], np.float32)),
        ("Constant <value_int = 3> ()", np.int64(3)),
        ("Constant <value_ints = [3, 4]> ()", np.array([3, 4], np.int64)),
    ],
)
def test_a_constant_is_the_same_as_node_and_as_initializer(constant, stored):
    node = spoken(f"x = Relu (images) v = {constant} w = Cast <to = 1> (v) u = ReduceSum (w) out = Add (x, u)", ["out"])
    initializer = onnx.ModelProto()
    initializer.CopyFrom(node)
    del initializer.graph.node[1]
    initializer.graph.initializer.append(numpy_helper.from_array(np.asarray(stored), "v"))
    fused = fuse({"a": node, "b": initializer}).model
    assert_same_outputs({"a": node, "b": initializer}, fused, pictures())
    assert len(layers(fused)) == 4


def test_text_that_is_none_is_refused(sketch):
    content = model_bytes(with_heads(sketch)).replace(b"edgetl.labels", b"edgetl.lab\xffls")
    with pytest.raises(EdgetlError, match="metadata of b is no text"):
        fuse({"a": with_heads(sketch), "b": onnx.load_model_from_string(content)})


def test_what_cannot_be_merged_is_refused(sketch):
    model = with_heads(sketch)
    model.graph.quantization_annotation.add(tensor_name="features")
    with pytest.raises(EdgetlError, match="b holds quantisation annotations"):
        fuse({"a": with_heads(sketch), "b": model})
    with pytest.raises(EdgetlError, match="no graphs"):
        fuse({})


def test_an_output_that_nothing_makes_is_refused(sketch):
    model = with_heads(sketch)
    model.graph.output[0].name = "gone"
    with pytest.raises(EdgetlError, match="nothing makes the output 'gone' of b"):
        fuse({"a": with_heads(sketch), "b": model})


def test_clashing_names_are_told_apart_or_refused(sketch):
    inner = with_heads(sketch)
    inner.graph.input[0].name = inner.graph.node[0].input[0] = "a/features"
    fused = fuse({"a": inner}).model
    assert [value.name for value in fused.graph.input] == ["a/features"]
    assert "a/features_" in {name for node in fused.graph.node for name in node.output}
    onnx.checker.check_model(fused, full_check=True)
    outer = with_heads(sketch)
    outer.graph.output[0].name = outer.graph.node[-1].output[0] = "b/vehicles"
    with pytest.raises(EdgetlError, match="two tensors would be called 'a/b/vehicles'"):
        fuse({"a": outer, "a/b": with_heads(sketch)})


# --- parts ---------------------------------------------------------------------------------------------------------


def test_the_part_that_an_output_needs_gives_the_same_output(sketch):
    models = {"a": with_heads(sketch), "b": with_heads(sketch, seed=2)}
    fused = fuse(models).model
    part = extract(fused, ["b/vehicles"])
    onnx.checker.check_model(part, full_check=True)
    feeds = pictures(size=16)
    np.testing.assert_array_equal(run(part, feeds)["b/vehicles"], run(fused, feeds)["b/vehicles"])
    assert len(part.graph.node) == 10
    assert len(part.graph.initializer) == len(models["b"].graph.initializer)
    assert part.graph.output[0] == fused.graph.output[1]
    assert [entry.value for entry in part.metadata_props] == ['{"b/vehicles": ["car"]}']


def test_any_tensor_can_become_an_output_of_a_part_with_its_type_and_shape(sketch):
    model = with_heads(sketch)
    part = extract(model, ["relu_3", "features"])
    onnx.checker.check_model(part, full_check=True)
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in part.graph.output]
    assert shapes == [[0, 4, 16, 16], [0, 4, 1, 1][:2]]
    assert [value.type.tensor_type.elem_type for value in part.graph.output] == [TensorProto.FLOAT] * 2
    assert [value.shape for value in run(part, pictures(size=16)).values()] == [(2, 4, 16, 16), (2, 4)]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["features", "nothing"], "no tensor 'nothing'"),
        ([""], "no tensor"),
        ([], "needs outputs"),
        (["features"] * 2, "once"),
    ],
)
def test_a_part_needs_tensors_that_are_there_each_once(outputs, message, sketch):
    with pytest.raises(EdgetlError, match=message):
        extract(with_heads(sketch), outputs)
