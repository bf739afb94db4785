from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from edgetl.graph.trunk_and_heads import parts


def model(nodes: list[onnx.NodeProto], outputs: list[str]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    images = [value("images", TensorProto.FLOAT, [1, 4])]
    return helper.make_model(
        helper.make_graph(nodes, "g", images, [value(name, TensorProto.FLOAT, [1, 4]) for name in outputs])
    )


def node(operator: str, source: str, target: str, name: str) -> onnx.NodeProto:
    return helper.make_node(operator, [source], [target], name=name)


def test_what_all_outputs_need_is_the_trunk() -> None:
    tree = model(
        [
            node("Relu", "images", "a", "stem"),
            node("Relu", "a", "b", "upper"),
            node("Relu", "b", "signs", "of signs"),
            node("Relu", "b", "people", "of people"),
            node("Relu", "a", "cars", "of cars"),
        ],
        ["signs", "people", "cars"],
    )
    assert parts(tree) == {
        "stem": "trunk", "upper": "signs, people", "of signs": "signs", "of people": "people", "of cars": "cars",
    }  # fmt: skip


def test_a_single_head_is_told_from_its_trunk() -> None:
    single = model(
        [node("Relu", "images", "f", "stem"), node("Softmax", "f", "combined", "head/combined/softmax")], ["combined"]
    )
    assert parts(single) == {"stem": "trunk", "head/combined/softmax": "combined"}


def test_what_a_branch_takes_from_outside_is_needed_by_its_output() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    yes = helper.make_graph([helper.make_node("Relu", ["f"], ["x"])], "yes", [], [value])
    no = helper.make_graph([helper.make_node("Neg", ["f"], ["x"])], "no", [], [value])
    gated = model(
        [
            node("Relu", "images", "f", "stem"),
            node("Relu", "images", "first", "of first"),
            helper.make_node("If", ["go"], ["second"], name="gate", then_branch=yes, else_branch=no),
        ],
        ["first", "second"],
    )
    assert parts(gated) == {"stem": "second", "of first": "first", "gate": "second"}
