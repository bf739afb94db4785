"""What does not fit FP16, found by running: it stays in FP32."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.arrays import Float32Array
from edgetl.graph.fp16 import LARGEST, float_tensors
from edgetl.graph.model import Wiring, with_outputs
from edgetl.graph.parity import Reference

HEADROOM = 2.0
"""Other images may reach further than those that were run: so many times as far still fits."""


def overflowing(model: onnx.ModelProto, images: Float32Array) -> dict[str, str]:
    """Nodes that read or make what is too large for FP16, by their first output, each with the reason.

    Args:
        images: float32 [n,3,H,W] in [0,1]; each runs alone.

    Raises:
        EdgetlError: as `Reference` does.
    """
    wiring = Wiring(model.graph)
    reach = _reach(model, wiring, images)
    too_large = {name: value for name, value in reach.items() if value * HEADROOM > LARGEST}
    weights = {name: _largest(wiring.array(name)) for name in wiring.constants}
    too_large |= {name: value for name, value in weights.items() if value > LARGEST}
    found = {}
    for node in wiring.nodes:
        large = next((name for name in (*node.input, *node.output) if name in too_large), None)
        if large is not None and node.output[0] not in wiring.constants:
            found[node.output[0]] = f"{large} reaches {too_large[large]:.4g}"
    return found


def _reach(model: onnx.ModelProto, wiring: Wiring, images: Float32Array) -> dict[str, float]:
    floats = float_tensors(model)
    names = [name for name in wiring.producers if name in floats and name not in wiring.constants]
    reference = Reference(with_outputs(model, names), optimised=False)
    reach = dict.fromkeys(names, 0.0)
    for position in range(len(images)):
        for name, values in reference.run(images[position : position + 1]).items():
            reach[name] = max(reach[name], _largest(values))
    return reach


def _largest(values: NDArray[np.generic]) -> float:
    """The largest finite magnitude: infinities (masks of attention) are infinities in FP16 too."""
    if not np.issubdtype(values.dtype, np.floating):
        return 0.0
    magnitudes = np.abs(values)
    return float(magnitudes.max(initial=0.0, where=np.isfinite(magnitudes)))
