"""Calibration tables: the ranges that a method chooses from what one pass over images saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from edgetl.artifacts.calibration_table import (
    CalibrationImage,
    CalibrationTable,
    CalibrationTrial,
    MagnitudeHistogram,
    TensorRange,
)
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import CalibrationRecipe, QdqFormat
from edgetl.graph.end_layers import assess_first_layers, assess_last_layers, last_inputs
from edgetl.graph.histogram import Histogram
from edgetl.graph.model import model_bytes
from edgetl.graph.observe import Observation
from edgetl.graph.parity import Outputs
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results
from edgetl.graph.thresholds import rounded, threshold

_STORED_BINS = 128
_PERCENTILES = (99.9, 99.99, 99.999)


def watched(model: onnx.ModelProto, tensors: Sequence[str], recipe: CalibrationRecipe) -> tuple[str, ...]:
    """The tensors to observe: those given and, for ``auto``, which tries the last layers in INT8 too, their inputs."""
    more = last_inputs(model) if tensors and recipe.method == "auto" else ()
    return tuple(dict.fromkeys((*tensors, *more)))


def ranked_tables(
    model: onnx.ModelProto,
    seen: Observation,
    recipe: CalibrationRecipe,
    images: tuple[CalibrationImage, ...],
    target: QdqFormat = "tensorrt",
) -> tuple[CalibrationTable, ...]:
    """A calibration table for every method of the recipe, the one with the highest signal-to-noise first.

    Every table's INT8 graph runs on the probe images, which costs a few dozen forward passes. Each table lists the
    signal-to-noise of all methods in ``trials``.
    """
    tables = _tables(model, seen, recipe, images)
    if len(tables) == 1:
        return tuple(tables.values())
    exact = results(model, seen.probe_images)
    noise = _snr_db(model, seen, tables, target, exact)
    best = sorted(tables, key=lambda method: -noise[method])  # stable: of equals the first
    # First and last layers are judged with the ranges that will be used, so only after the method is chosen.
    chosen = tables[best[0]]
    first = assess_first_layers(model, chosen, target, seen.probe_images, exact, noise[best[0]])
    chosen = chosen.replaced(first=first)
    last = assess_last_layers(model, chosen, target, seen.probe_images, exact)
    trials = tuple(CalibrationTrial(method=method, snr_db=noise[method]) for method in best)
    assessed = {"trials": trials, "first": first, "last": last}
    return tuple(tables[method].replaced(**assessed) for method in best)


def least_noisy_table(
    model: onnx.ModelProto,
    seen: Observation,
    recipe: CalibrationRecipe,
    images: tuple[CalibrationImage, ...],
    target: QdqFormat,
) -> CalibrationTable:
    """The first of `ranked_tables`, without an assessment of first and last layers."""
    tables = _tables(model, seen, recipe, images)
    if len(tables) == 1:
        return next(iter(tables.values()))
    noise = _snr_db(model, seen, tables, target, results(model, seen.probe_images))
    return tables[max(noise, key=noise.__getitem__)]


def _tables(
    model: onnx.ModelProto, seen: Observation, recipe: CalibrationRecipe, images: tuple[CalibrationImage, ...]
) -> dict[str, CalibrationTable]:
    methods: tuple[str, ...] = (recipe.method,)
    if recipe.method == "percentile":
        methods = (f"percentile {recipe.percentile:g}",)
    elif recipe.method == "auto":  # of methods that are equally good the first is taken
        methods = ("mse", "max", *(f"percentile {share:g}" for share in _PERCENTILES), "entropy")
    return {method: method_table(model, seen, method, images) for method in methods}


def _snr_db(
    model: onnx.ModelProto,
    seen: Observation,
    tables: Mapping[str, CalibrationTable],
    target: QdqFormat,
    exact: Outputs,
) -> dict[str, float]:
    return {
        method: mean_snr_db(exact, results(quantize(model, table, target), seen.probe_images, tuple(exact)))
        for method, table in tables.items()
    }


def method_table(
    model: onnx.ModelProto, seen: Observation, method: str, images: tuple[CalibrationImage, ...]
) -> CalibrationTable:
    """The calibration table that a method (named as tables name it) makes of an observation."""
    return CalibrationTable(
        method=method,
        graph_sha256=sha256_bytes(model_bytes(model)),
        images=images,
        tensors=tuple(tensor_range(name, histogram, method) for name, histogram in seen.histograms.items()),
    )


def tensor_range(name: str, histogram: Histogram, method: str) -> TensorRange:
    """The range that a method (named as tables name it) gives a tensor with this histogram.

    It never reaches beyond the extremes seen; tensors that are never negative get ``low`` = 0.
    """
    minimum, maximum = rounded(histogram.minimum), rounded(histogram.maximum)
    amax = threshold(histogram, method)
    low, high = max(-amax, min(minimum, 0.0)), min(amax, max(maximum, 0.0))
    counts = histogram.merged(_STORED_BINS)
    kept = counts[: int(np.flatnonzero(counts)[-1]) + 1]
    magnitudes = MagnitudeHistogram(width=2.0**histogram.exponent / _STORED_BINS, counts=tuple(kept.tolist()))
    return TensorRange(
        name=name, method=method, minimum=minimum, maximum=maximum, low=low, high=high, magnitudes=magnitudes
    )
