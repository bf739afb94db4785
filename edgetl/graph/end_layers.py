"""Whether the first layers and the last ones are INT8: decided by the noise that it adds and the latency it saves."""

from __future__ import annotations

import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.calibration_table import CalibrationTable, FirstLayers, LastLayer
from edgetl.config import QdqFormat
from edgetl.graph.cost import estimate_relative_latency
from edgetl.graph.model import Wiring
from edgetl.graph.parity import Outputs
from edgetl.graph.qdq_placement import first_layers, last_layers
from edgetl.graph.quantize import quantize
from edgetl.graph.snr import mean_snr_db, results, snr_db

# Fraction of the estimated latency: a smaller saving is not worth any noise.
_LEAST_SAVED = 0.01
# An eighth more noise than the rest of the network in INT8 makes; calibration methods differ by more.
_MOST_NOISE_DB = 0.5


def assess_first_layers(
    model: onnx.ModelProto,
    table: CalibrationTable,
    target: QdqFormat,
    probes: Float32Array,
    exact: Outputs,
    in_int8: float,
    own: onnx.ModelProto | None = None,
) -> FirstLayers | None:
    """Compare the first layers in INT8 and in float while others but the last are INT8; None if there are no others.

    Args:
        exact: results of the float graph on the probes, see `results`.
        in_int8: the mean signal to noise of the results with the first layers in INT8.
        own: the model with the weights that the first layers have in float, where these differ.
    """
    layers = first_layers(Wiring(model.graph), target)
    if not layers:
        return None
    floating = quantize(own or model, table, target, layers)
    in_float = mean_snr_db(exact, results(floating, probes, tuple(exact)))
    saved = _saved(floating, quantize(model, table, target))
    fits = _fits(_LEAST_SAVED if saved is None else saved, in_float - in_int8)
    return FirstLayers(layers=layers, snr_db=in_float, snr_db_int8=in_int8, saved=saved, int8=fits)


def last_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the tensors that the last layers read, in the order of the graph."""
    wiring = Wiring(model.graph)
    return tuple(dict.fromkeys(source for _, source in last_layers(wiring)))


def assess_last_layers(
    model: onnx.ModelProto, table: CalibrationTable, target: QdqFormat, probes: Float32Array, exact: Outputs
) -> tuple[LastLayer, ...]:
    """Compare each last layer in INT8 and in float while all others are INT8, in two passes over the probe images.

    Args:
        table: a last layer for whose input it has no range is left out.
        exact: results of the float graph on the probes, see `results`.
    """
    ranges = table.by_name()
    names = [name for name, source in last_layers(Wiring(model.graph)) if source in ranges]
    if not names:
        return ()
    kept = table.first_in_float()
    without, within = (quantize(model, one, target, kept) for one in (table, _with(table, names)))
    others, found = (results(form, probes, names) for form in (without, within))
    judged = []
    for name in names:
        in_float, in_int8 = snr_db(exact[name], others[name]), snr_db(exact[name], found[name])
        saved = _saved(without, quantize(model, _with(table, [name]), target, kept)) or 0.0
        fits = _fits(saved, in_float - in_int8)
        judged.append(LastLayer(layer=name, snr_db=in_float, snr_db_int8=in_int8, saved=saved, int8=fits))
    return tuple(judged)


def _saved(before: onnx.ModelProto, after: onnx.ModelProto) -> float | None:
    """The fraction of the estimated latency that is saved; None where it is not known."""
    least, most = estimate_relative_latency(after), estimate_relative_latency(before)
    return round(1 - least / most, 4) if least and most else None


def _fits(saved: float, noise: float) -> bool:
    return saved >= _LEAST_SAVED and noise <= _MOST_NOISE_DB


def _with(table: CalibrationTable, names: list[str]) -> CalibrationTable:
    chosen = tuple(LastLayer(layer=name, snr_db=0.0, snr_db_int8=0.0, saved=0.0, int8=True) for name in names)
    return table.replaced(last=chosen)
