"""Measures latency and energy of a study's deployments and of plain files in the same way."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetl.arrays import Float32Array, Float64Array
from edgetl.artifacts.files import file_stem, write_bytes
from edgetl.artifacts.measurements import Energy
from edgetl.engine.runtime import Engine
from edgetl.errors import EdgetlError
from edgetl.measure.energy import EnergyPlan, measure_energy
from edgetl.measure.latency import narrow
from edgetl.measure.machine import MachineState, probe
from edgetl.measure.power import find_meter
from edgetl.measure.timing import DeviceTimedCall, LatencySamples, Load, Measurement, TimingPlan, measure
from edgetl.stages.stage import ProgressReporter, advance_to


@dataclass(frozen=True)
class StoppingRule:
    """When to stop measuring: once every interval is narrower than ``interval_width`` (a share), at most ``seconds``.

    ``limit``: a ratio of the first candidate's time to the last one's; measuring goes on while the true ratio may be on
    either side of it.
    """

    seconds: float = 10.0
    interval_width: float = 0.01
    limit: float | None = None


@dataclass(frozen=True)
class EngineCall:
    """One inference of an engine on inputs that stay the same."""

    engine: Engine
    inputs: tuple[Float32Array, ...]

    def __call__(self) -> object:
        return self.engine.infer(*self.inputs)


class TimedCall(EngineCall):
    """One inference of an engine that keeps the parts of its time."""

    def take_device_times(self) -> Float64Array:
        assert isinstance(self.engine, DeviceTimedCall)
        return self.engine.take_device_times()


def engine_call(engine: Engine, batch: int = 1) -> EngineCall:
    """One inference on ``batch`` random images at once; a `TimedCall` where the engine keeps the parts of its time."""
    random = np.random.default_rng(0)  # the same images for every candidate: times may depend on values
    shapes = ((batch, *shape[1:]) if batch > 1 else shape for shape in engine.shapes)
    inputs = tuple(random.random(shape, dtype=np.float32) for shape in shapes)
    return (TimedCall if isinstance(engine, DeviceTimedCall) else EngineCall)(engine, inputs)


def time_all(
    names: Sequence[str], load: Load, until: StoppingRule, seed: int, reporter: ProgressReporter
) -> Measurement[MachineState]:
    """The times of all candidates, measured side by side under a progress bar, with the machine's state after every
    round.
    """
    with reporter.progress("measuring latency", 1.0) as advance:
        plan = TimingPlan(seconds=until.seconds, seed=seed)
        return measure(names, load, plan, narrow(until.interval_width, until.limit), advance_to(advance), probe())


def write_samples(folder: Path, samples: Mapping[str, LatencySamples]) -> dict[str, Path]:
    """Write the raw times (rounds x repeats, ms) of each candidate, so that any figure can be recomputed.

    Returns:
        The file of each title. Titles may be paths: the file is named after the last part, with a number where two
        titles would give one name.
    """
    paths: dict[str, Path] = {}
    for number, (title, one) in enumerate(samples.items()):
        stem = file_stem(Path(title).name.replace(" ", "."))
        path = folder / f"{stem}.npy"
        paths[title] = path if path not in paths.values() else folder / f"{stem}.{number}.npy"
        buffer = io.BytesIO()
        # A pickle could run code where it is loaded.
        np.save(buffer, one.times, allow_pickle=False)
        write_bytes(paths[title], buffer.getvalue())
    return paths


def energies(
    names: Sequence[str], load: Load, seconds: float, seed: int, reporter: ProgressReporter
) -> dict[str, Energy]:
    """The energy of a call of each candidate, measured in about as many seconds as its latency."""
    try:
        meter = find_meter()
    except EdgetlError as error:
        return {name: Energy(reason=str(error)) for name in names}
    plan = EnergyPlan.within(seconds, len(names), seed)
    with reporter.progress("measuring energy", plan.rounds) as advance:
        return measure_energy(load(names, 0), meter, plan, lambda: advance(1))
