"""What others' benchmark helpers report of the models that `edgetl profile` measures, and the same in one run.

ONNX Runtime's helper (of its transformers tools), PyTorch's ``torch.utils.benchmark`` and NVIDIA's Polygraphy: each
does what its documentation shows, on one thread, in an order drawn anew in every turn. Needs, beside edgetl with its
extra ``train``, the packages polygraphy and transformers (ONNX Runtime's helper imports it).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from fuse import BACKBONES
from record import MATERIAL, Quiet, save, spread
from torch.utils import benchmark

from edgetl.config import BackboneSettings
from edgetl.engine.options import RunOptions
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.measuring import StoppingRule
from edgetl.stages.profile_files import ProfileRequest, profile_files
from edgetl.train.backbones import load_backbone
from edgetl.train.onnx_export import export_trunk

SIZE = 224
TURNS = 5
NETWORKS = {
    **BACKBONES,
    "SqueezeNet": ("torchvision/squeezenet1_0", "backbones/squeezenet1_0/squeezenet1_0.safetensors"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each helper, in each turn")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for title in options.networks:
        name, weights = NETWORKS[title]
        study = BackboneSettings(name=name, weights=str(MATERIAL / weights) if weights else None, image_size=SIZE)
        with tempfile.TemporaryDirectory() as folder:
            figures[title] = network(study, Path(folder) / "model.onnx", options.seconds)
    save(options.output, "helpers", {"image_size": SIZE, "turns": TURNS, "milliseconds": figures}, threads=1)


def network(study: BackboneSettings, graph: Path, seconds: float) -> dict[str, Any]:
    backbone = load_backbone(study, Path(), seed=0)
    save_model(simplify(export_trunk(backbone)), graph)
    rng = np.random.default_rng(0)
    helpers = all_helpers(backbone.trunk, graph, seconds)
    found: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for position in rng.permutation(len(helpers)):
            for title, value in list(helpers.values())[position]().items():
                found.setdefault(title, []).append(value)
    return {title: spread(values) for title, values in sorted(found.items())}


def all_helpers(module: torch.nn.Module, graph: Path, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """By name a function that measures once and tells what its helper reports, in milliseconds."""
    return {
        "edgetl": lambda: edgetl(graph, seconds),
        "ort": lambda: onnx_runtime(graph, seconds),
        "torch": lambda: pytorch(module, graph, seconds),
        "polygraphy": lambda: polygraphy(graph, seconds),
    }


def edgetl(graph: Path, seconds: float) -> dict[str, float]:
    order = ProfileRequest({graph.name: graph}, StoppingRule(seconds, 1e-6), RunOptions(threads=1))
    (row,) = profile_files(order, Quiet()).deployments
    assert row.latency_ms is not None
    return {"edgetl profile: p50": row.latency_ms.p50, "edgetl profile: mean": row.latency_ms.mean}


def session(graph: Path) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)
    return made, {made.get_inputs()[0].name: image}


def onnx_runtime(graph: Path, seconds: float) -> dict[str, float]:
    from onnxruntime.transformers.benchmark_helper import inference_ort

    made, feed = session(graph)
    one = benchmark.Timer("made.run(None, feed)", globals={"made": made, "feed": feed}).timeit(3).mean
    result = inference_ort(made, feed, {}, max(5, int(seconds / one)), 1)
    return {
        "ONNX Runtime's inference_ort: average": float(result["average_latency_ms"]),
        "ONNX Runtime's inference_ort: p90": float(result["latency_90_percentile"]),
    }


def pytorch(module: torch.nn.Module, graph: Path, seconds: float) -> dict[str, float]:
    made, feed = session(graph)
    image = torch.rand(1, 3, SIZE, SIZE)
    with torch.inference_mode():
        eager = benchmark.Timer("module(image)", globals={"module": module, "image": image}, num_threads=1)
        of_eager = eager.blocked_autorange(min_run_time=seconds).median
    run = benchmark.Timer("made.run(None, feed)", globals={"made": made, "feed": feed}, num_threads=1)
    return {
        "torch.utils.benchmark on eager PyTorch: median": of_eager * 1e3,
        "torch.utils.benchmark on ONNX Runtime: median": run.blocked_autorange(min_run_time=seconds).median * 1e3,
    }


def polygraphy(graph: Path, seconds: float) -> dict[str, float]:
    """Its command as it comes: no warm-up, and threads as ONNX Runtime chooses; and warmed up on one core."""
    cold = _polygraphy(graph, "--iterations", "10")
    count = str(max(10, int(seconds * 1e3 / cold)))
    cores = os.sched_getaffinity(0)
    warm = _polygraphy(graph, "--iterations", count, "--warm-up", "20", cores={min(cores)})
    return {"polygraphy run, as it comes: average": cold, "polygraphy run, warmed up on one core: average": warm}


def _polygraphy(graph: Path, *words: str, cores: set[int] | None = None) -> float:
    program = Path(sys.executable).with_name("polygraphy")
    command = [str(program), "run", str(graph), "--onnxrt", "--sequential-runners", *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )
    found = re.search(r"Average inference time: ([\d.]+) ms", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


if __name__ == "__main__":
    main()
