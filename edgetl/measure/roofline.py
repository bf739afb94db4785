"""Latency estimated from a graph's operations and bytes and a device's peaks: a roofline for each kernel.

Williams, Waterman, Patterson: Roofline. Communications of the ACM 52(4), 2009. A kernel takes as long as the slower of
its arithmetic and its way to memory, each at the fraction of the peak that was seen to be reached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgetl.artifacts.measurements import KernelCost
from edgetl.config import Precision
from edgetl.errors import EdgetlError
from edgetl.measure.devices import DevicePeaks, Efficiency

_PRECISIONS: dict[int, Precision] = {32: "fp32", 16: "fp16", 8: "int8"}
_BITS = {precision: bits for bits, precision in _PRECISIONS.items()}
_MS = 1e3


@dataclass(frozen=True)
class Bounds:
    """The interval of a latency in milliseconds: ``low`` <= ``middle`` <= ``high``."""

    low: float
    middle: float
    high: float


def estimate(kernels: Iterable[KernelCost], target: DevicePeaks) -> Bounds:
    """Return how long kernels take on a device, one after another.

    Raises:
        EdgetlError: the device cannot compute in a precision of theirs.
    """
    work = list(kernels)
    # Kernels that only move bytes have a width, too, but any device can move them.
    for bits in sorted({kernel.bits for kernel in work if kernel.flops}):
        precision = _PRECISIONS.get(bits)
        if precision is None:
            known = "write the graph in fp32, fp16 or int8"
            raise EdgetlError(f"no device here has figures for arithmetic on {bits} bits; {known}")
        if precision not in target.peaks or precision not in target.efficiency.compute:
            able = ", ".join(name for name in target.peaks if name in target.efficiency.compute)
            raise EdgetlError(
                f"{target.device} cannot run {precision}; it runs {able}: prepare the graph in one of these"
            )
    middle = latency_ms(work, target.peaks, target.bandwidth, target.efficiency)
    return Bounds(middle / target.efficiency.spread, middle, middle * target.efficiency.spread)


def latency_ms(
    kernels: Iterable[KernelCost], peaks: dict[Precision, float], bandwidth: float, efficiency: Efficiency
) -> float:
    """Return the calibrated model's milliseconds. ``peaks`` are operations and ``bandwidth`` bytes per second."""
    seconds = 0.0
    for kernel in kernels:
        moving = kernel.bytes / (bandwidth * efficiency.bandwidth)
        if kernel.flops:
            precision = _PRECISIONS[kernel.bits]
            moving = max(moving, kernel.flops / (peaks[precision] * efficiency.compute[precision]))
        seconds += moving + efficiency.launch_us * 1e-6
    return seconds * _MS


def prepared(kernels: Iterable[KernelCost], precision: Precision) -> list[KernelCost]:
    """Return the kernels of the same graph if it were written in a precision; what is narrower already stays."""
    bits = _BITS[precision]
    return [
        replace(kernel, bits=bits, bytes=kernel.bytes * bits / kernel.bits) if kernel.bits > bits else kernel
        for kernel in kernels
    ]


def main_precision(kernels: Iterable[KernelCost]) -> str:
    """Return the precision that most operations are done in."""
    operations: dict[int, int] = {}
    for kernel in kernels:
        operations[kernel.bits] = operations.get(kernel.bits, 0) + kernel.flops
    bits = max(operations, key=lambda width: operations[width], default=32)
    return _PRECISIONS.get(bits, f"{bits} bits")
