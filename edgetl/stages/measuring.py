"""How the latency of anything is measured: by a study's deployments and by plain files alike."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.files import file_stem, write_bytes
from edgetl.engine.runtime import Engine
from edgetl.measure.latency import narrow
from edgetl.measure.machine import State, probe
from edgetl.measure.rounds import Floats, Load, Measurement, Parted, Plan, Samples, measure
from edgetl.stages.stage import Watcher

Array = npt.NDArray[np.float32]

_ALL = 1000


@dataclass(frozen=True)
class Precision:
    """When to stop: as soon as every interval is narrower than ``width`` (a share), at the latest after ``seconds``.

    ``limit``: of the first candidate's time by the last one's; measuring goes on while that may be on either side.
    """

    seconds: float = 10.0
    width: float = 0.01
    limit: float | None = None


@dataclass(frozen=True)
class EngineCall:
    """One inference of an engine on inputs that stay the same."""

    engine: Engine
    inputs: tuple[Array, ...]

    def __call__(self) -> object:
        return self.engine.infer(*self.inputs)


class TimedCall(EngineCall):
    """One whose engine keeps the parts of its time."""

    def take_parts(self) -> Floats:
        assert isinstance(self.engine, Parted)
        return self.engine.take_parts()


def engine_call(engine: Engine, batch: int = 1) -> EngineCall:
    """On random images, ``batch`` at once; with the parts of its time where the engine keeps them."""
    random = np.random.default_rng(0)
    shapes = ((batch, *shape[1:]) if batch > 1 else shape for shape in engine.shapes)
    inputs = tuple(random.random(shape, dtype=np.float32) for shape in shapes)
    return (TimedCall if isinstance(engine, Parted) else EngineCall)(engine, inputs)


def time_all(names: Sequence[str], load: Load, until: Precision, seed: int, watcher: Watcher) -> Measurement[State]:
    """Measure candidates side by side, watched by a bar, the machine's state read after every round."""
    done = 0.0
    with watcher.progress("measuring latency", _ALL) as advance:

        def watch(share: float) -> None:
            nonlocal done
            advance(_ALL * (share - done))
            done = share

        plan = Plan(seconds=until.seconds, seed=seed)
        return measure(names, load, plan, narrow(until.width, until.limit), watch, probe())


def write_samples(folder: Path, samples: Mapping[str, Samples]) -> dict[str, Path]:
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
