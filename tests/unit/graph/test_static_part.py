"""What is left of graphs that end in something that depends on the image."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetl.graph.cost import CostModel
from edgetl.graph.static_part import certain_part


def detector(behind: tuple[onnx.NodeProto, ...]) -> onnx.ModelProto:
    """A convolution that gives boxes and scores at once, then what a test puts behind them."""
    weight = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w")
    shape = numpy_helper.from_array(np.array([1, 16, 4]), "boxes_shape")
    scores = numpy_helper.from_array(np.array([1, 4, 16]), "scores_shape")
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("Reshape", ["maps", "boxes_shape"], ["boxes"]),
        helper.make_node("Reshape", ["maps", "scores_shape"], ["scores"]),
        *behind,
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info(behind[-1].output[0], TensorProto.UNDEFINED, None)],
        [weight, shape, scores],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SUPPRESSION = helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["chosen"])


def test_a_detector_is_left_up_to_its_suppression() -> None:
    cast = helper.make_node("Cast", ["chosen"], ["rows"], to=TensorProto.FLOAT)
    part, left_out = certain_part(detector((SUPPRESSION, cast)))
    assert left_out == ("NonMaxSuppression",)
    assert [node.op_type for node in part.graph.node] == ["Conv", "Reshape", "Reshape"]
    assert {output.name for output in part.graph.output} == {"boxes", "scores"}
    assert CostModel(part).cost().flops == 2 * 16 * 4 * 3


def test_a_graph_without_such_operators_is_left_alone() -> None:
    model = detector((helper.make_node("Relu", ["scores"], ["rows"]),))
    assert certain_part(model) == (model, ())


def test_nothing_is_left_out_where_work_depends_on_it() -> None:
    chosen = helper.make_node("Cast", ["chosen"], ["rows"], to=TensorProto.FLOAT)
    work = helper.make_node("MatMul", ["rows", "rows"], ["product"])
    model = detector((SUPPRESSION, chosen, work))
    assert certain_part(model) == (model, ())
