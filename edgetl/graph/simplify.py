"""Constant folding and clean-up by onnx-simplifier, and names that clash with nobody's."""

from __future__ import annotations

import onnx
import onnx.compose

from edgetl.artifacts.bundle import TRUNK
from edgetl.errors import EdgetlError, MissingExtraError


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """The trunk in fewer nodes, every inner name beginning with ``trunk/``, so that no group's name can clash with it.

    The prefix comes last because onnx-simplifier gives what it fuses names of its own.

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
    return _prefixed(simplified)


def _prefixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every name but the input's begins with the trunk's prefix."""
    prefixed = onnx.compose.add_prefix(model, TRUNK, rename_inputs=False)
    # onnx 1.16 gives the input the prefix all the same; newer ones leave it alone.
    kept = {TRUNK + value.name: value.name for value in model.graph.input}
    for value in prefixed.graph.input:
        value.name = kept.get(value.name, value.name)
    for node in prefixed.graph.node:
        node.input[:] = [kept.get(name, name) for name in node.input]
    return prefixed
