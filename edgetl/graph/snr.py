"""The signal-to-noise of a graph in another precision against its original, in decibels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from edgetl.arrays import AnyArray, Float32Array
from edgetl.graph.model import Wiring, with_outputs
from edgetl.graph.parity import Outputs, Reference

MOST_DB = 120.0
"""The signal-to-noise that counts as none at all; float32 itself has about 140."""


def results(model: onnx.ModelProto, images: Float32Array, names: Sequence[str] = ()) -> Outputs:
    """Run a graph on images, one at a time: the named tensors, by default those that its tail reads (`Wiring.results`).

    Args:
        images: float32 [n,3,H,W] in [0,1].

    Raises:
        EdgetlError: as `Reference` does.
    """
    names = tuple(names) or Wiring(model.graph).results()
    reference = Reference(with_outputs(model, names))
    found = [reference.run(images[position : position + 1]) for position in range(len(images))]
    return {name: np.concatenate([one[name] for one in found]) for name in names}


def snr_db(reference: AnyArray, found: AnyArray) -> float:
    """The signal-to-noise of a tensor against its reference."""
    return decibels(*powers(reference, found))


def powers(reference: AnyArray, found: AnyArray) -> tuple[float, float]:
    """The sums of squares of the signal and of the noise."""
    exact = reference.astype(np.float64)
    return float(np.square(exact).sum()), float(np.square(exact - found).sum())


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), rounded to 0.01 dB, because smaller differences are chance."""
    if noise == 0.0:
        return MOST_DB
    if signal == 0.0 or not np.isfinite(noise):
        return -MOST_DB
    return round(float(np.clip(10 * np.log10(signal / noise), -MOST_DB, MOST_DB)), 2)


def mean_snr_db(reference: Outputs, found: Outputs) -> float:
    """The mean signal-to-noise over all tensors."""
    return round(float(np.mean([snr_db(value, found[name]) for name, value in reference.items()])), 2)
