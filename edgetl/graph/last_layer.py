"""Whether the last layer before a graph's results is worth its INT8: measured, not taken for granted."""

from __future__ import annotations

import onnx

from edgetl.artifacts.calibration import CalibrationTable, LastLayer
from edgetl.graph.cost import estimate_latency
from edgetl.graph.model import Wiring
from edgetl.graph.noise import results, snr_db
from edgetl.graph.observe import Images
from edgetl.graph.parity import Outputs
from edgetl.graph.placement import Target, last_layers
from edgetl.graph.quantise import quantise

_LEAST_SAVED = 0.01
"""Of the estimated latency: what is less is not worth any noise."""
_MOST_NOISE_DB = 0.5
"""An eighth more noise than the rest of the network in INT8 makes; methods differ by more."""


def last_inputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """What the last layers read: in the order of the graph, for calibration to watch."""
    wiring = Wiring(model.graph)
    return tuple(dict.fromkeys(source for _, source in last_layers(wiring)))


def judge_last_layers(
    model: onnx.ModelProto, table: CalibrationTable, target: Target, probes: Images, exact: Outputs
) -> tuple[LastLayer, ...]:
    """Each last layer in INT8 against in float, all others being INT8: two passes of the probe images for all of them.

    Args:
        table: with a range for what a last layer reads; one without is passed over.
        exact: what the float graph makes of the probes, see `results`.
    """
    ranges = table.by_name()
    names = [name for name, source in last_layers(Wiring(model.graph)) if source in ranges]
    if not names:
        return ()
    without = quantise(model, table, target)
    others, found = (results(form, probes, names) for form in (without, quantise(model, _with(table, names), target)))
    before = estimate_latency(without)
    judged = []
    for name in names:
        in_float, in_int8 = snr_db(exact[name], others[name]), snr_db(exact[name], found[name])
        after = estimate_latency(quantise(model, _with(table, [name]), target))
        saved = round(1 - after / before, 4) if before and after else 0.0
        fits = saved >= _LEAST_SAVED and in_float - in_int8 <= _MOST_NOISE_DB
        judged.append(LastLayer(layer=name, snr_db=in_float, snr_db_int8=in_int8, saved=saved, int8=fits))
    return tuple(judged)


def _with(table: CalibrationTable, names: list[str]) -> CalibrationTable:
    chosen = tuple(LastLayer(layer=name, snr_db=0.0, snr_db_int8=0.0, saved=0.0, int8=True) for name in names)
    return table.model_copy(update={"last": chosen})
