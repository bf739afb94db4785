"""What `edgetl profile` adds: latency as it measures it, over a bare loop on the very same ONNX Runtime session.

Both are measured by turns, in one process, in an order drawn anew.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fuse import write_graphs
from record import Quiet, save
from trust import NETWORK, TITLE

from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine
from edgetl.measure import bootstrap
from edgetl.measure.latency import summarise
from edgetl.stages.measuring import StoppingRule, engine_call, time_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each, in each turn")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        graph = write_graphs(NETWORK, Path(scratch))[0][0]
        engine = Path(scratch) / "engine.onnx"
        build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
        ratios = np.array(turns(engine, options.turns, options.seconds))
    value, low, high = bootstrap.median(ratios)
    found = {"value": value, "low": low, "high": high, "each": ratios.round(4).tolist()}
    save(options.output, "overhead", {"network": TITLE, "profile_over_bare_loop": found}, threads=1)


def turns(engine: Path, count: int, seconds: float) -> list[float]:
    loaded = load_engine(engine, threads=1)
    session: onnxruntime.InferenceSession = loaded._session  # type: ignore[attr-defined]  # the very same one
    call = engine_call(loaded)
    feed = {session.get_inputs()[0].name: call.inputs[0]}
    rng, ratios = np.random.default_rng(0), []
    for turn in range(count):

        def profiled(seed: int = turn) -> float:
            measured = time_all(
                ["it"], lambda *_, call=call: {"it": call}, StoppingRule(seconds, 0.0001), seed, Quiet()
            )
            return summarise(measured.samples["it"]).p50

        first = profiled() if rng.random() < 0.5 else None
        loop = bare(session, feed, seconds)
        ratios.append((profiled() if first is None else first) / loop)
    return ratios


def bare(session: onnxruntime.InferenceSession, feed: dict[str, Any], seconds: float) -> float:
    """The median of a loop that does nothing else, ms."""
    times: list[int] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while not times or time.perf_counter_ns() < end:
        begin = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - begin)
    return float(np.median(times)) / 1e6


if __name__ == "__main__":
    main()
