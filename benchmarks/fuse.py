"""What fusing gains: three specialists on one trunk, run one after another, against the graph that `edgetl fuse` makes.

The floor is the trunk alone, run once: no fused graph can be faster. Heads are linear layers with random weights; what
the layers hold does not change how long they take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import MATERIAL, save

from edgetl.artifacts.bundle import ClassificationHead
from edgetl.config import BackboneSettings
from edgetl.engine.runtime import BuildOptions, build_engine, get_runtime, load_engine
from edgetl.graph.compose import compose
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.measure.latency import ratio
from edgetl.measure.timing import TimingPlan, measure
from edgetl.train.backbones import load_backbone
from edgetl.train.onnx_export import export_trunk

BACKBONES = {
    "MobileNetV2": ("torchvision/mobilenet_v2", "backbones/mobilenet_v2/mobilenet_v2.torchvision.safetensors"),
    "ResNet-50": ("torchvision/resnet50", None),
    "Darknet-53": ("timm/darknet53", None),
}
GROUPS = {"vehicles": 5, "signs": 10, "people": 5}
IMAGE_SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, default=MATERIAL)
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring, for each backbone")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    figures = {}
    for title, (name, weights) in BACKBONES.items():
        with tempfile.TemporaryDirectory() as scratch:
            study = BackboneSettings(name=name, weights=str(options.material / weights) if weights else None)
            figures[title] = compare(study, Path(scratch), options.seconds)
    save(options.output, "fuse", {"image_size": IMAGE_SIZE, "heads": GROUPS, "backbones": figures}, threads=1)


def compare(study: BackboneSettings, scratch: Path, seconds: float) -> dict[str, Any]:
    specialists, trunk = write_graphs(study, scratch)
    fused = scratch / "fused.onnx"
    command = [sys.executable, "-m", "edgetl", "fuse", *map(str, specialists), "-o", str(fused), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    apart, together, alone = (engines(paths) for paths in (specialists, [fused], [trunk]))
    image = np.random.default_rng(0).random((1, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    calls: dict[str, Callable[[], object]] = {
        name: lambda loaded=loaded: [engine.infer(image) for engine in loaded]
        for name, loaded in (("one after another", apart), ("fused", together), ("trunk alone", alone))
    }
    samples = measure(list(calls), lambda *_: calls, TimingPlan(seconds=seconds)).samples
    return {
        "milliseconds": {name: float(np.median(sample.per_round)) for name, sample in samples.items()},
        "one_after_another_over_fused": interval(ratio(samples["one after another"], samples["fused"])),
        "fused_over_trunk_alone": interval(ratio(samples["fused"], samples["trunk alone"])),
        "fuse": report,
    }


def write_graphs(study: BackboneSettings, scratch: Path) -> tuple[list[Path], Path]:
    """A specialist for each group, as another project would have exported them, and the trunk without a head."""
    backbone = load_backbone(study, Path(), seed=0)
    trunk = fuse({"trunk": simplify(export_trunk(backbone))}).model
    rng = np.random.default_rng(0)
    paths = []
    for group, labels in GROUPS.items():
        head = a_head(group, labels + 1)
        weights = {
            f"{group}.weight": rng.normal(0, 0.01, (labels + 1, backbone.reference.feature_dim)).astype(np.float32),
            f"{group}.bias": np.zeros(labels + 1, np.float32),
        }
        paths.append(scratch / f"{group}.onnx")
        save_model(compose(trunk, [head], weights, backbone.preprocessing), paths[-1])
    alone = scratch / "trunk.onnx"
    save_model(trunk, alone)
    return paths, alone


def a_head(group: str, classes: int) -> ClassificationHead:
    names = tuple(f"{group} {number}" for number in range(classes))
    return ClassificationHead(
        name=group,
        classes=names,
        activation="softmax",
        l2=1.0,
        temperature=1.0,
        val_loss=0.0,
        val_accuracy=0.0,
    )


def engines(graphs: list[Path]) -> list[Any]:
    runtime = get_runtime("onnxruntime")
    loaded = []
    for graph in graphs:
        engine = graph.with_suffix(".engine.onnx")
        build_engine(runtime, graph, engine, BuildOptions())
        loaded.append(load_engine(engine, threads=1))
    return loaded


def interval(found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), found, strict=True))


if __name__ == "__main__":
    main()
