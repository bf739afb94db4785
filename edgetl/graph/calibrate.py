"""Calibration: one streamed pass over images, one range per tensor, the same bits every time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgetl.artifacts.calibration import CalibrationImage, CalibrationTable, TensorRange
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import Recipe
from edgetl.errors import EdgetlError
from edgetl.graph.metadata import detecting_outputs
from edgetl.graph.model import Wiring, model_bytes
from edgetl.graph.parity import Reference
from edgetl.graph.placement import place

BINS = 4096
"""Bins of a histogram of magnitudes: 16 to 32 for each INT8 step where nothing is clipped."""

_LOWEST_EXPONENT = -100
_MANTISSA_BITS = 8
_LEVELS = 127
# Clipping thresholds that mse tries: five octaves below the largest magnitude, in steps of 1/16 octave.
_CANDIDATES = np.exp2(-np.arange(5 * 16 + 1) / 16)


def quantisable_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """The activations of the trunk that either spelling may need a range for, in the order of the graph.

    These are the inputs of Conv, Gemm and MatMul (so the normalised image is one), outputs of Conv, and what
    joins and pools between them. A tensor behind MaxPool, Flatten and their kin takes the range of what went in,
    a Conv followed by Relu that of the Relu. The raw image, the features that only heads read, and the outputs
    are none: they stay in float.
    """
    wiring = Wiring(model.graph, detecting_outputs(model))
    needed = {name for target in ("tensorrt", "onnxruntime") for name in place(wiring, target).sources.values()}
    ordered = (*(value.name for value in model.graph.input), *wiring.producers)
    return tuple(name for name in ordered if name in needed)


def calibrate(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.float32]],
    recipe: Recipe,
    images: tuple[CalibrationImage, ...],
    tensors: Sequence[str] | None = None,
) -> CalibrationTable:
    """Find the range of every tensor that `quantisable_tensors` names.

    Args:
        batches: images float32 [n,3,H,W] in [0,1], any n. Each image runs alone, because kernels sum in another
            order for another batch size: so neither batch size nor order changes a bit of the result.
        recipe: ``max`` keeps everything; ``percentile`` clips all but that share of magnitudes; ``mse`` takes
            the threshold with the least expected squared error of symmetric INT8.
        images: what the batches hold, for the record, in the order the table is to list them.
        tensors: those of several graphs of which the model is the whole; left out, those of the model.

    All methods read the same histogram, so they differ in nothing but the threshold. A threshold never reaches
    beyond the extremes seen; tensors that are never negative get ``low`` = 0. Ranges are rounded to 8 mantissa
    bits: other processors sum in other orders, and a noise of 1e-6 should not make another table.

    Raises:
        EdgetlError: there are no images, not as many as recorded, they do not fit the graph, a tensor holds NaN
            or infinity, or the graph has nothing to calibrate.
    """
    names = tuple(tensors) if tensors is not None else quantisable_tensors(model)
    if not names:
        raise EdgetlError("the graph has no Conv, Gemm or MatMul with constant weights to calibrate; keep it in FP32")
    histograms = {name: Histogram() for name in names}
    count = 0
    reference = Reference(_with_outputs(model, names), optimised=False)
    for image in _single(batches):
        count += 1
        values = reference.run(image)
        for name, histogram in histograms.items():
            _add(histogram, name, values[name], count)
    _refuse_miscount(count, len(images))
    return CalibrationTable(
        method=f"percentile {recipe.percentile:g}" if recipe.method == "percentile" else recipe.method,
        graph_sha256=sha256_bytes(model_bytes(model)),
        images=images,
        tensors=tuple(_range(name, histogram, recipe) for name, histogram in histograms.items()),
    )


def _single(batches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    for batch in batches:
        if batch.ndim != 4 or batch.dtype != np.float32:
            raise EdgetlError(f"a calibration batch is {batch.dtype} {list(batch.shape)}, expected float32 [n,3,H,W]")
        yield from (batch[index : index + 1] for index in range(len(batch)))


def _add(histogram: Histogram, name: str, values: NDArray[Any], count: int) -> None:
    if not np.isfinite(values).all():
        raise EdgetlError(f"tensor {name!r} holds NaN or infinity on calibration image {count}; check the weights")
    histogram.add(values)


def _refuse_miscount(found: int, recorded: int) -> None:
    if not found:
        raise EdgetlError("there are no calibration images; give at least one")
    if found != recorded:
        raise EdgetlError(f"{found} images were calibrated on but {recorded} recorded; record each image once")


def _with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for name in names:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return watched


class Histogram:
    """Counts of a tensor's magnitudes in ``BINS`` equal bins from 0 to ``2**exponent``, and its extremes with sign.

    A value beyond doubles the range, merging bins in pairs. Bin ends are multiples of a power of two, so the counts
    are exactly those of a histogram that had the final range from the start.
    """

    def __init__(self) -> None:
        self.exponent = _LOWEST_EXPONENT
        self.counts = np.zeros(BINS, np.int64)
        self.minimum = np.inf
        self.maximum = -np.inf

    def add(self, values: NDArray[np.float32]) -> None:
        """Count finite values of any shape, at least one."""
        low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        # frexp gives magnitude < 2**exponent, strictly: the last bin never overflows.
        self._widen_to(int(np.frexp(max(-low, high))[1]))
        bins = (np.abs(values.ravel()) * np.float32(BINS * 2.0**-self.exponent)).astype(np.intp)
        self.counts += np.bincount(bins, minlength=BINS)

    def _widen_to(self, exponent: int) -> None:
        while self.exponent < exponent:
            merged = self.counts.reshape(BINS // 2, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, np.int64)])
            self.exponent += 1

    @property
    def width(self) -> float:
        """The width of a bin."""
        return float(2.0**self.exponent / BINS)


def _range(name: str, histogram: Histogram, recipe: Recipe) -> TensorRange:
    minimum, maximum = _rounded(histogram.minimum), _rounded(histogram.maximum)
    amax = max(-minimum, maximum)
    if recipe.method == "percentile":
        amax = _rounded(min(amax, _percentile(histogram, recipe.percentile)))
    elif recipe.method == "mse":
        amax = _rounded(_least_squares(histogram, amax))
    low, high = max(-amax, min(minimum, 0.0)), min(amax, max(maximum, 0.0))
    return TensorRange(name=name, minimum=minimum, maximum=maximum, low=low, high=high)


def _rounded(value: float) -> float:
    mantissa, exponent = np.frexp(value)
    return float(np.ldexp(np.rint(np.ldexp(mantissa, _MANTISSA_BITS)), int(exponent) - _MANTISSA_BITS)) + 0.0


def _percentile(histogram: Histogram, percentile: float) -> float:
    """The upper end of the bin that the percentile of the magnitudes falls in."""
    below = np.cumsum(histogram.counts)
    wanted = int(np.ceil(below[-1] * (percentile / 100)))
    return float((np.searchsorted(below, wanted) + 1) * histogram.width)


def _least_squares(histogram: Histogram, amax: float) -> float:
    """The threshold with the least expected squared error of symmetric INT8 (127 steps), over bin centres."""
    occupied = np.flatnonzero(histogram.counts)
    centres = (occupied + 0.5) * histogram.width
    thresholds = amax * _CANDIDATES
    steps = thresholds[:, None] / _LEVELS if amax else np.ones((1, 1))
    restored = np.minimum(np.rint(centres / steps), _LEVELS) * steps
    errors = (np.square(centres - restored) * histogram.counts[occupied]).sum(axis=1)
    return float(thresholds[np.argmin(errors)])
