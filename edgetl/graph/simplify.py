"""Constant folding and clean-up by onnx-simplifier."""

from __future__ import annotations

import onnx

from edgetl.errors import EdgetlError, MissingExtraError


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with constants folded and redundant nodes removed.

    Raises:
        MissingExtraError: onnx-simplifier is not installed.
        EdgetlError: it could not simplify the graph.
    """
    try:
        import onnxsim  # imports torch where it is installed: only those who simplify pay for that
    except ImportError as error:
        raise MissingExtraError("simplifying a graph", "train", error) from error
    try:
        simplified: onnx.ModelProto
        simplified, same = onnxsim.simplify(model)
    except Exception as error:  # onnxsim raises whatever its C++ part throws
        raise EdgetlError(f"onnx-simplifier failed on the exported graph: {error}") from error
    if not same:
        raise EdgetlError(
            "onnx-simplifier changed the outputs of the exported graph; report this with the backbone's name"
        )
    return simplified
