"""Whether `edgetl profile` can be trusted: false alarms on copies of one engine, and planted slow-downs that it finds.

A slow-down is planted by waiting, after each inference, for a share of the time that it took. In half of all runs
another program starts half-way on the other core and stays.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from fuse import write_graphs
from record import MATERIAL, Quiet, save

from edgetl.config import BackboneSettings
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine
from edgetl.measure.latency import compare_latencies, summarise
from edgetl.measure.timing import Workload
from edgetl.stages.measuring import StoppingRule, engine_call, time_all

NETWORK = BackboneSettings(
    name="torchvision/squeezenet1_0",
    weights=str(MATERIAL / "backbones" / "squeezenet1_0" / "squeezenet1_0.safetensors"),
    image_size=128,
)
TITLE = "SqueezeNet at 128 pixels, one thread"
PLANTED = {"a copy": 0.0, "3 % slower": 0.03, "5 % slower": 0.05}
LOAD = """
import sys, time, numpy as np
time.sleep(float(sys.argv[1]))
a = np.random.rand(400, 400)
while True:
    a = np.tanh(a @ a)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="the most of one run, as of `edgetl profile`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    measured, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit("the other program needs a core of its own; this machine has one")
    os.sched_setaffinity(0, {measured})
    with tempfile.TemporaryDirectory() as scratch:
        graph = write_graphs(NETWORK, Path(scratch))[0][0]
        engine = Path(scratch) / "engine.onnx"
        build_engine(get_runtime("onnxruntime"), graph, engine, BuildOptions())
        figures: dict[str, Any] = {"network": TITLE, "seconds": options.seconds}
        kinds = {title: [] for title in PLANTED}  # type: dict[str, list[dict[str, Any]]]
        for number in range(options.runs):
            for title, share in PLANTED.items():
                kinds[title].append(run(engine, share, number, options.seconds, others[0] if number % 2 else None))
            print(number, {title: found[-1]["ratio"] for title, found in kinds.items()}, file=sys.stderr)
    figures["planted"] = {title: summary(found, PLANTED[title]) for title, found in kinds.items()}
    save(options.output, "trust", figures, threads=1)


def run(engine: Path, share: float, seed: int, seconds: float, other: int | None) -> dict[str, Any]:
    """The engine, slowed down by a share, against its copy; as `edgetl profile` does it."""
    random = np.random.default_rng(seed)
    # Neither place is the slower one's.
    names = ["slower", "copy"] if random.random() < 0.5 else ["copy", "slower"]

    def load(wanted: Sequence[str], number: int) -> Mapping[str, Workload]:
        del number
        calls = {name: engine_call(load_engine(engine, threads=1)) for name in wanted}
        return {name: slowed(call, share if name == "slower" else 0.0) for name, call in calls.items()}

    with ExitStack() as stack:
        if other is not None:
            command = ["taskset", "-c", str(other), sys.executable, "-c", LOAD, str(seconds / 2)]
            process = stack.enter_context(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}))
            stack.callback(process.kill)
        samples = time_all(names, load, StoppingRule(seconds=seconds), seed, Quiet()).samples
    (pair,) = compare_latencies({name: samples[name] for name in ("slower", "copy")})
    stable = all(summarise(one).stable for one in samples.values())
    return {
        "ratio": round(pair.ratio or 0.0, 5),
        "low": round(pair.low, 5),
        "high": round(pair.high, 5),
        "rounds": len(samples["copy"].times),
        "stable": stable and pair.why_unstable is None,
        "loaded": other is not None,
    }


def slowed(call: Workload, share: float) -> Workload:
    def slow() -> None:
        begin = time.perf_counter_ns()
        call()
        end = time.perf_counter_ns()
        until = end + share * (end - begin)
        while time.perf_counter_ns() < until:
            pass

    return slow


def summary(runs: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """``found``: intervals above 1; ``excluded``: intervals without 1; ``covered``: with the truth in them."""
    ratios = np.array([one["ratio"] for one in runs])
    figures: dict[str, Any] = {}
    for title, some in (("all", runs), ("alone", loaded(runs, False)), ("beside another program", loaded(runs, True))):
        figures[title] = {
            "runs": len(some),
            "found": sum(one["low"] > 1.0 for one in some),
            "excluded": sum(one["low"] > 1.0 or one["high"] < 1.0 for one in some),
            "covered": sum(one["low"] <= 1.0 + share <= one["high"] for one in some),
            "called_unstable": sum(not one["stable"] for one in some),
        }
    spread = {"median_ratio": float(np.median(ratios)), "least": float(ratios.min()), "greatest": float(ratios.max())}
    width = float(np.median([one["high"] - one["low"] for one in runs]))
    return {**figures, **spread, "median_width": width, "each": runs}


def loaded(runs: list[dict[str, Any]], beside: bool) -> list[dict[str, Any]]:
    return [one for one in runs if one["loaded"] == beside]


if __name__ == "__main__":
    main()
