"""How the latency of anything is measured: by a study's deployments and by plain files alike."""

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
from edgetl.stages.stage import ProgressReporter

_ALL = 1000


@dataclass(frozen=True)
class StoppingRule:
    """When to stop: as soon as every interval is narrower than ``interval_width`` (a share), at the latest after
    ``seconds``.

    ``limit``: of the first candidate's time by the last one's; measuring goes on while that may be on either side.
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
    """One whose engine keeps the parts of its time."""

    def take_device_times(self) -> Float64Array:
        assert isinstance(self.engine, DeviceTimedCall)
        return self.engine.take_device_times()


def engine_call(engine: Engine, batch: int = 1) -> EngineCall:
    """On random images, ``batch`` at once; with the parts of its time where the engine keeps them."""
    random = np.random.default_rng(0)
    shapes = ((batch, *shape[1:]) if batch > 1 else shape for shape in engine.shapes)
    inputs = tuple(random.random(shape, dtype=np.float32) for shape in shapes)
    return (TimedCall if isinstance(engine, DeviceTimedCall) else EngineCall)(engine, inputs)


def time_all(
    names: Sequence[str], load: Load, until: StoppingRule, seed: int, reporter: ProgressReporter
) -> Measurement[MachineState]:
    """Measure candidates side by side, watched by a bar, the machine's state read after every round."""
    done = 0.0
    with reporter.progress("measuring latency", _ALL) as advance:

        def watch(share: float) -> None:
            nonlocal done
            advance(_ALL * (share - done))
            done = share

        plan = TimingPlan(seconds=until.seconds, seed=seed)
        return measure(names, load, plan, narrow(until.interval_width, until.limit), watch, probe())


def write_samples(folder: Path, samples: Mapping[str, LatencySamples]) -> dict[str, Path]:
    """The raw times (rounds x repeats, ms) of each candidate, so that any figure can be recomputed.

    Titles may be paths: a file is called like the last part, and what two have in common gets a number.
    """
    paths: dict[str, Path] = {}
    for number, (title, one) in enumerate(samples.items()):
        stem = file_stem(Path(title).name.replace(" ", "."))
        path = folder / f"{stem}.npy"
        paths[title] = path if path not in paths.values() else folder / f"{stem}.{number}.npy"
        buffer = io.BytesIO()
        np.save(buffer, one.times, allow_pickle=False)
        write_bytes(paths[title], buffer.getvalue())
    return paths


def energies(
    names: Sequence[str], load: Load, seconds: float, seed: int, reporter: ProgressReporter
) -> dict[str, Energy]:
    """For each candidate the energy of a call, in about as many seconds as its latency was measured in."""
    try:
        meter = find_meter()
    except EdgetlError as error:
        return {name: Energy(reason=str(error)) for name in names}
    plan = EnergyPlan.within(seconds, len(names), seed)
    with reporter.progress("measuring energy", plan.rounds) as advance:
        return measure_energy(load(names, 0), meter, plan, lambda: advance(1))
