"""Checks that a graph's outputs agree with its metadata and that its detections are suppressed."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgetl.artifacts.detector_bundle import VALUES
from edgetl.config import NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import detecting_outputs


def nms_settings_of(graph: onnx.ModelProto, owner: str) -> dict[str, NmsSettings]:
    """The suppression settings of each output with detections.

    Raises:
        EdgetlError: an output is not suppressed, or its shape is not the one that its metadata state.
    """
    found: dict[str, NmsSettings] = {}
    for output, detecting in detecting_outputs(graph).items():
        if detecting.nms is None:
            raise EdgetlError(
                f"{owner} gives every box and leaves suppression to others (output {output!r}); export it with "
                "--nms operator"
            )
        found[output] = detecting.nms
    refuse_other_shapes(graph, owner, {name: (one.max_detections, VALUES) for name, one in found.items()})
    return found


def refuse_other_shapes(graph: onnx.ModelProto, owner: str, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check the shapes of outputs for one image against those that follow from the metadata.

    Raises:
        EdgetlError: an output is missing or has another shape.
    """
    shapes = {output.name: output.type.tensor_type.shape.dim for output in graph.graph.output}
    found = {name: tuple(dim.dim_value for dim in dims)[1:] for name, dims in shapes.items()}
    wrong = next((name for name, shape in expected.items() if found.get(name) != shape), None)
    if wrong is not None:
        is_there = _shape(found[wrong]) if wrong in found else "missing"
        raise EdgetlError(
            f"output {wrong!r} of {owner} is {is_there}, expected {_shape(expected[wrong])} by its metadata; export "
            "the graph again"
        )


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(["N", *(str(size or "?") for size in sizes)])
