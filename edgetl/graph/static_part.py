"""The part of a graph whose sizes do not depend on values: a detector without its suppression."""

from __future__ import annotations

import onnx

from edgetl.graph.extract import extract
from edgetl.graph.model import tensors_read

_UNCERTAIN = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique"})
_WORK = frozenset({"Conv", "ConvInteger", "ConvTranspose", "Einsum", "Gemm", "MatMul", "MatMulInteger", "QLinearConv"})


def certain_part(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The part of the graph whose sizes do not depend on values, and the operators that end it; the whole if none does.

    A graph with a convolution or a matrix product behind such an operator is returned whole, because the part would
    say little of its cost.
    """
    uncertain: set[str] = set()
    begins: list[str] = []
    read: list[str] = []
    made: list[str] = []
    for node in model.graph.node:
        if node.op_type not in _UNCERTAIN and uncertain.isdisjoint(tensors_read(node)):
            made += [name for name in node.output if name]
            continue
        if node.op_type in _WORK:
            return model, ()
        if uncertain.isdisjoint(tensors_read(node)):
            begins.append(node.op_type)
        uncertain |= set(node.output)
        read += tensors_read(node)
    if not begins:
        return model, ()
    asked = {*read, *(output.name for output in model.graph.output)}
    return extract(model, [name for name in made if name in asked]), tuple(dict.fromkeys(begins))
