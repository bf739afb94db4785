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
    """These tensors, and what else a recipe wants to see of a graph: ``auto`` tries the last layers in INT8 too."""
    more = last_inputs(model) if tensors and recipe.method == "auto" else ()
    return tuple(dict.fromkeys((*tensors, *more)))


def ranked_tables(
    model: onnx.ModelProto,
    seen: Observation,
    recipe: CalibrationRecipe,
    images: tuple[CalibrationImage, ...],
    target: QdqFormat = "tensorrt",
) -> tuple[CalibrationTable, ...]:
    """A table for every method of the recipe, the one that disturbs the graph's results least first.

    The probe images go through the graph and through its INT8 forms (so this costs a few dozen forward passes); what
    every method came to is in each table's ``trials``.
    """
    tables = _tables(model, seen, recipe, images)
    if len(tables) == 1:
        return tuple(tables.values())
    exact = results(model, seen.probe_images)
    noise = _snr_db(model, seen, tables, target, exact)
    best = sorted(tables, key=lambda method: -noise[method])  # stable: of equals the first
    chosen = tables[best[0]]
    first = assess_first_layers(model, chosen, target, seen.probe_images, exact, noise[best[0]])
    chosen = chosen.model_copy(update={"first": first})
    last = assess_last_layers(model, chosen, target, seen.probe_images, exact)
    trials = tuple(CalibrationTrial(method=method, snr_db=noise[method]) for method in best)
    found = {"trials": trials, "first": first, "last": last}
    return tuple(tables[method].model_copy(update=found) for method in best)


def least_noisy_table(
    model: onnx.ModelProto,
    seen: Observation,
    recipe: CalibrationRecipe,
    images: tuple[CalibrationImage, ...],
    target: QdqFormat,
) -> CalibrationTable:
    """The first of `ranked_tables`, with no word on first and last layers."""
    tables = _tables(model, seen, recipe, images)
    if len(tables) == 1:
        return next(iter(tables.values()))
    noise = _snr_db(model, seen, tables, target, results(model, seen.probe_images))
    return tables[max(noise, key=noise.__getitem__)]


def _tables(
    model: onnx.ModelProto, seen: Observation, recipe: CalibrationRecipe, images: tuple[CalibrationImage, ...]
) -> dict[str, CalibrationTable]:
    return {method: method_table(model, seen, method, images) for method in _methods(recipe)}


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


def _methods(recipe: CalibrationRecipe) -> tuple[str, ...]:
    if recipe.method == "auto":
        return ("mse", "max", *(f"percentile {share:g}" for share in _PERCENTILES), "entropy")
    return (f"percentile {recipe.percentile:g}" if recipe.method == "percentile" else recipe.method,)


def method_table(
    model: onnx.ModelProto, seen: Observation, method: str, images: tuple[CalibrationImage, ...]
) -> CalibrationTable:
    """The ranges that a method, as a table names it, chooses from what one pass saw."""
    return CalibrationTable(
        method=method,
        graph_sha256=sha256_bytes(model_bytes(model)),
        images=images,
        tensors=tuple(tensor_range(name, histogram, method) for name, histogram in seen.histograms.items()),
    )


def tensor_range(name: str, histogram: Histogram, method: str) -> TensorRange:
    """The range that a method (as a table names it) chooses for a tensor of these magnitudes.

    All methods read the same histogram, so they differ in nothing but the threshold.

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
