"""The nodes whose values overflow in FP16, found by running the graph: they stay in FP32."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.arrays import Float32Array
from edgetl.graph.fp16 import LARGEST, float_tensors
from edgetl.graph.model import Wiring, with_outputs
from edgetl.graph.parity import Reference

HEADROOM = 2.0
"""Values of other images may be so many times as large as those of the images that were run."""


def overflowing(model: onnx.ModelProto, images: Float32Array) -> dict[str, str]:
    """The nodes that read or make values too large for FP16, by their first output, each with the reason.

    Args:
        images: float32 [n,3,H,W] in [0,1]; each runs alone.

    Raises:
        EdgetlError: as `Reference` does.
    """
    wiring, floats = Wiring(model.graph), float_tensors(model)
    names = [name for name in wiring.producers if name in floats and name not in wiring.constants]
    reference = Reference(with_outputs(model, names), optimised=False)
    largest = dict.fromkeys(names, 0.0)
    for position in range(len(images)):
        for name, values in reference.run(images[position : position + 1]).items():
            largest[name] = max(largest[name], _largest(values))
    too_large = {name: value for name, value in largest.items() if value * HEADROOM > LARGEST}
    weights = {name: _largest(wiring.array(name)) for name in wiring.constants}
    too_large |= {name: value for name, value in weights.items() if value > LARGEST}
    found = {}
    for node in wiring.nodes:
        large = next((name for name in (*node.input, *node.output) if name in too_large), None)
        if large is not None and node.output[0] not in wiring.constants:
            found[node.output[0]] = f"{large} reaches {too_large[large]:.4g}"
    return found


def _largest(values: NDArray[np.generic]) -> float:
    """The largest finite magnitude. Infinities (masks of attention) do not count: FP16 has them too."""
    if not np.issubdtype(values.dtype, np.floating):
        return 0.0
    magnitudes = np.abs(values)
    return float(magnitudes.max(initial=0.0, where=np.isfinite(magnitudes)))
