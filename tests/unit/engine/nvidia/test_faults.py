from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from edgetl.engine.nvidia.faults import explain_builder

NODES = [
    helper.make_node("Conv", ["x", "w"], ["a"], name="/backbone/conv"),
    helper.make_node("Relu", ["a"], ["b"]),
    helper.make_node("NonMaxSuppression", ["b", "s"], ["c"], name="/head/nms"),
]
MODEL = helper.make_model(
    helper.make_graph(NODES, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], [])
)


@pytest.mark.parametrize(
    ("said", "node", "advice"),
    [
        (
            "[tacticSupply.cpp::getSupportedFormats::48] Error Code 2: Internal Error (Assertion !layerImpls.empty() "
            "failed. /head/nms_0 has no runners that implement it In getSupportedFormats)",
            "node /head/nms (NonMaxSuppression)", "export the detector with --nms loop",
        ),
        (
            "10: Could not find any implementation for node {ForeignNode[/backbone/conv.../head/nms]}.",
            "node /backbone/conv (Conv)", "no kernel for it: raise --workspace-mb",
        ),
        ("10: Could not find any implementation for node node_of_b.", "node 1 (Relu)", "no kernel for it"),
        ("[executionContext.cpp] Error Code 2: OutOfMemory (Requested size was 99 bytes.)", None, "ran out of memory"),
        ("Cuda Runtime (out of memory)", None, "lower --workspace-mb or --batches"),
        ("/backbone/conv: DLA cannot run this layer", "node /backbone/conv (Conv)", "--gpu-fallback"),
        ("Network must have the same type: /backbone/conv", "node /backbone/conv (Conv)", "edgetl prepare"),
        ("cudaError 35: CUDA driver version is insufficient for CUDA runtime version", None, "edgetl doctor"),
        ("something nobody has seen", None, ""),
    ],
)  # fmt: skip
def test_a_message_names_the_node_and_what_to_do(said: str, node: str | None, advice: str) -> None:
    line = explain_builder([said], MODEL)
    assert line.startswith(f"{node}: " if node else said[:20])
    assert said[:80] in line
    assert line.endswith(advice) or advice in line
    assert (advice == "") == (line == said)


def test_the_error_that_names_a_node_wins_and_another_may_give_the_advice() -> None:
    line = explain_builder(["In file x: assertion failed", "/backbone/conv: failed, out of memory"], MODEL)
    assert line.startswith("node /backbone/conv (Conv): ") and "ran out of memory" in line


def test_a_builder_that_says_nothing_is_told_so() -> None:
    assert explain_builder([], MODEL) == "it gave no reason"
    assert len(explain_builder(["x" * 5000], onnx.ModelProto())) < 400
