"""Whether a graph's outputs are what its metadata say, and whether its boxes are ready to be read."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgetl.artifacts.detector_bundle import VALUES
from edgetl.config import NmsSettings
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import detecting_outputs


def nms_settings_of(graph: onnx.ModelProto, owner: str) -> dict[str, NmsSettings]:
    """What each output with detections has done about overlapping boxes.

    Raises:
        EdgetlError: one leaves that to others, or is not of the shape that its metadata say.
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


def refuse_other_shapes(graph: onnx.ModelProto, owner: str, said: Mapping[str, tuple[int, ...]]) -> None:
    """Raises: EdgetlError: metadata do not fit to the graph, by the shapes for one image: somebody changed one."""
    found = {
        output.name: tuple(dim.dim_value for dim in output.type.tensor_type.shape.dim)[1:]
        for output in graph.graph.output
    }
    wrong = next((name for name, shape in said.items() if found.get(name) != shape), None)
    if wrong is not None:
        is_there = _shape(found[wrong]) if wrong in found else "missing"
        raise EdgetlError(
            f"output {wrong!r} of {owner} is {is_there}, expected {_shape(said[wrong])} by its metadata; export the "
            "graph again"
        )


def _shape(sizes: tuple[int, ...]) -> str:
    return " x ".join(["N", *(str(size or "?") for size in sizes)])
