"""Cadence and concurrency on real engines, against what a simulation and fair sharing of the cores say they should be.

Three specialists of a backbone at 128 pixels, on ONNX Runtime with one thread each. Cadence: vehicles at 15 Hz, signs
at 5 and people at 30, all scaled so that the device is busy for a given share of the time. The simulation gets the same
arrivals. It is fed twice: with the service times of the very run, which tells what the executor adds; and with times
drawn from those that each engine took by itself, back to back, which tells how well they predict the run. Concurrency:
on one core and on two, where so many engines that share cores fairly take max(1, engines / cores) times as long.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fuse import engines, write_graphs
from record import MATERIAL, save
from simulation import drawn, simulate

from edgetl.config import BackboneSettings
from edgetl.measure.scenarios.cadence import PeriodicWorkload, run_schedule, schedule
from edgetl.measure.scenarios.contention import measure_contention
from edgetl.measure.scenarios.figures import percentile
from edgetl.measure.scenarios.interleave import ScenarioPlan, warm_up
from edgetl.measure.scenarios.issue import ConcurrentWorkload, side_by_side
from edgetl.measure.scenarios.schedule import Trace

BACKBONES = {
    "MobileNetV2": ("torchvision/mobilenet_v2", "backbones/mobilenet_v2/mobilenet_v2.torchvision.safetensors"),
    "SqueezeNet": ("torchvision/squeezenet1_0", "backbones/squeezenet1_0/squeezenet1_0.safetensors"),
}
RATES = {"vehicles": 15.0, "signs": 5.0, "people": 30.0}
LOADS = (0.3, 0.6, 0.8)
IMAGE_SIZE = 128
DRAWS = 20
"""Simulations of each round from drawn times: one alone is as noisy as the run itself."""

Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load, and of each number of cores")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figures = {}
    for title, (name, weights) in BACKBONES.items():
        with tempfile.TemporaryDirectory() as scratch:
            study = BackboneSettings(name=name, weights=str(options.material / weights), image_size=IMAGE_SIZE)
            calls = dict(load(study, Path(scratch)))
        figures[title] = {
            "cadence": [cadence(calls, load, options.seconds) for load in LOADS],
            "concurrent": [row for cores in (1, 2) for row in concurrent(calls, cores, options.seconds)],
        }
    save(options.output, "scenarios", {"image_size": IMAGE_SIZE, "backbones": figures}, threads=1)


def load(study: BackboneSettings, scratch: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    paths, _ = write_graphs(study, scratch)
    image = np.random.default_rng(0).random((1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for path, engine in zip(paths, engines(paths), strict=True):
        yield path.stem, lambda engine=engine: engine.infer(image)


def cadence(calls: Calls, busy: float, seconds: float) -> dict[str, Any]:
    needed = sum(RATES[name] * warm_up(call, ScenarioPlan()) for name, call in calls.items())
    parts = {name: PeriodicWorkload(call, RATES[name] * busy / needed) for name, call in calls.items()}
    rng, draws = np.random.default_rng(0), np.random.default_rng(1)
    measured: list[Trace] = []
    own: list[Trace] = []
    predicted: list[Trace] = []
    while sum(trace.arrivals.horizon for trace in measured) < seconds:
        alone = tuple(side_by_side({"": ConcurrentWorkload(call)}, 0.1)[""] / 1e3 for call in calls.values())
        trace = run_schedule(parts, schedule(parts, rng))
        measured.append(trace)
        own.append(simulate(trace.arrivals, trace.service))
        predicted += [simulate(trace.arrivals, drawn(trace.arrivals, alone, draws)) for _ in range(DRAWS)]
    return {
        "wanted_utilisation": busy,
        "rates_hz": {name: paced.rate_hz for name, paced in parts.items()},
        "rounds": len(measured),
        **against(summary(measured), {"of_own_times": summary(own), "of_times_alone": summary(predicted)}),
    }


def summary(traces: Sequence[Trace]) -> dict[str, float]:
    response = np.concatenate([trace.response for trace in traces]) * 1e3
    return {
        "utilisation": float(np.median([trace.utilisation for trace in traces])),
        "mean_response_ms": float(response.mean()),
        "p99_response_ms": percentile(99)(response),
        "miss_share": float(np.concatenate([trace.missed for trace in traces]).mean()),
    }


def against(measured: dict[str, float], simulated: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What was measured, what was simulated, and by what share of it the two differ; misses differ in points."""

    def error(found: dict[str, float]) -> dict[str, float]:
        ratios = {name: measured[name] / value - 1.0 for name, value in found.items() if name != "miss_share"}
        return {**ratios, "miss_share_points": 100 * (measured["miss_share"] - found["miss_share"])}

    return {
        "measured": measured,
        **{f"simulated_{name}": found for name, found in simulated.items()},
        **{f"error_{name}": error(found) for name, found in simulated.items()},
    }


def concurrent(calls: Calls, cores: int, seconds: float) -> Iterator[dict[str, Any]]:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < cores:
        return
    os.sched_setaffinity(0, set(sorted(allowed)[:cores]))  # of this thread, and of those that it will start
    try:
        parts = {name: ConcurrentWorkload(call) for name, call in calls.items()}
        (found,) = measure_contention({"": parts}, ScenarioPlan(seconds=seconds, slice_ms=100.0))
    finally:
        os.sched_setaffinity(0, allowed)
    for pair in found.contention:
        expected = max(1.0, (1 + len(pair.concurrent_with)) / cores)
        yield {
            "cores": cores,
            "workload": pair.workload,
            "concurrent_with": list(pair.concurrent_with),
            "ratio": {"value": pair.value, "low": pair.low, "high": pair.high},
            "fair_share": expected,
            "error": pair.value / expected - 1.0,
        }


if __name__ == "__main__":
    main()
