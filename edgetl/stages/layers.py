"""Where the time of an engine goes, told by the nodes of the graph that it was built from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.artifacts.layers import Layers
from edgetl.engine.layer_times import origins
from edgetl.engine.runtime import RunOptions, load_engine, time_layers
from edgetl.graph.model import load_model
from edgetl.graph.parts import parts
from edgetl.measure.layers import Timed, Whole, fold

Array = npt.NDArray[np.float32]


def engine_layers(
    name: str, engine: Path, graph: Path | None, run: RunOptions, latency_ms: float | None, trust: bool = False
) -> Layers:
    """The times of an engine's layers on random images, one at a time.

    Args:
        name: what the engine is called.
        graph: what it was built from; None where only the engine is there: layers then have no nodes.
        latency_ms: of the engine without a profiler, to stand beside.

    Raises:
        EdgetlError: as `time_layers` does.
    """
    times = time_layers(engine, random_inputs(engine, run, trust), trust=trust, run=run)
    model = None if graph is None else load_model(graph)
    find = None if model is None else origins(model)
    timed = [
        Timed(layer.name, None if find is None else find(layer), layer.operator, layer.ms) for layer in times.layers
    ]
    whole = Whole(name, times.source, times.runs, times.whole_ms, latency_ms)
    return fold(timed, whole, {} if model is None else parts(model))


def random_inputs(engine: Path, run: RunOptions, trust: bool = False) -> Sequence[Array]:
    """One image, or what else an engine starts from."""
    random = np.random.default_rng(0)
    return [random.random(shape, dtype=np.float32) for shape in load_engine(engine, trust=trust, run=run).shapes]
