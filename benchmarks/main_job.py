"""The figures of the main job on real images: accuracy against scikit-learn, INT8 against FP32, shared against
specialised, what `--help` costs, and the memory of feature extraction.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from record import MATERIAL, save, spread

STRENGTHS = (3e-4, 3e-3, 1e-2, 3e-2, 1e-1)

STUDY = """
name: vehicles-and-animals
data: {{format: image-folder, root: {data}, train: train, val: 0.1, test: test}}
groups:
  vehicles: [airplane, automobile, ship, truck]
  animals: [bird, cat, deer, dog, frog, horse]
backbone: {{name: torchvision/mobilenet_v2, weights: {weights}, image_size: 128}}
deployments: [combined, specialised, shared, one-vs-rest]
precisions: [fp32, int8]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=MATERIAL / "datasets" / "cifar10")
    weights = MATERIAL / "backbones" / "mobilenet_v2" / "mobilenet_v2.torchvision.safetensors"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study, run = Path(scratch) / "study.yaml", Path(scratch) / "run"
        study.write_text(STUDY.format(data=options.data.resolve(), weights=options.weights.resolve()))
        begin = time.perf_counter()
        edgetl("run", study, "-o", run, "--threads", 1, "--seconds", 30)
        figures = {
            "seconds_for_the_study": time.perf_counter() - begin,
            "accuracy": accuracies(run),
            "scikit_learn": scikit_learn(run),
            "shared_against_specialised": shared_against_specialised(run),
            "int8_minus_fp32_points": int8_drops(run),
            "help": help_cost(),
            "memory": memory(),
        }
        save(options.output, "main_job", figures, threads=1)


def edgetl(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "edgetl", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def results(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "results.json").read_text())
    return content


def accuracies(run: Path) -> dict[str, float]:
    rows = results(run)["deployments"]
    return {f"{row['name']} {row['precision']}": row["accuracy"]["overall"]["value"] for row in rows}


def int8_drops(run: Path) -> dict[str, float]:
    found = accuracies(run)
    names = {title.split()[0] for title in found}
    return {name: 100 * (found[f"{name} int8"] - found[f"{name} fp32"]) for name in sorted(names)}


def scikit_learn(run: Path) -> dict[str, Any]:
    """LogisticRegression on the features that our heads were fitted on, validation choosing of the same strengths."""
    from sklearn.linear_model import LogisticRegression

    features, labels = cached(run)
    # Our strengths are relative to the mean variance; scikit-learn's C divides the penalty by the summed loss.
    scale = len(labels["train"]) * float(features["train"].var(axis=0).mean())
    best: tuple[float, float, float] = (0.0, 0.0, 0.0)
    for strength in STRENGTHS:
        model = LogisticRegression(C=1 / (scale * strength), max_iter=2000).fit(features["train"], labels["train"])
        val, test = (model.score(features[split], labels[split]) for split in ("val", "test"))
        best = max(best, (val, test, strength))
    return {
        "best_strength": best[2],
        "test_accuracy": best[1],
        "ours_minus_theirs_points": 100 * (accuracies(run)["combined fp32"] - best[1]),
    }


def cached(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Features of all splits: train and val as cached, test through the same trunk."""
    from edgetl.artifacts.bundle import Bundle
    from edgetl.artifacts.data_index import DataIndex
    from edgetl.artifacts.files import read_json
    from edgetl.config import load_study
    from edgetl.data.index_images import data_root
    from edgetl.data.stream import stream, to_input
    from edgetl.data.views import renderer
    from edgetl.graph.model import load_model
    from edgetl.graph.parity import Reference

    study = load_study(run.parent / "study.yaml")
    index = read_json(run / "data" / "index.json", DataIndex)
    bundle = read_json(run / "bundle" / "bundle.json", Bundle)
    root = data_root(study, index.generated, run.parent, run)
    trunk = Reference(load_model(run / "bundle" / "trunk.onnx"))
    features, labels = {}, {}
    for split in ("train", "val", "test"):
        samples = index.split(split)
        render = renderer(bundle.preprocessing)
        batches = list(stream(samples, root, render, lambda images: next(iter(trunk.run(to_input(images)).values()))))
        features[split] = np.concatenate([batch.result for batch in batches])
        labels[split] = np.array([samples[row].label for batch in batches for row in batch.rows])
    return features, labels


def shared_against_specialised(run: Path) -> dict[str, Any]:
    predictions = np.load(run / "measurements" / "predictions.npz", allow_pickle=False)
    pairs = {
        p: float(np.abs(predictions[f"shared {p}"] - predictions[f"specialised {p}"]).max()) for p in ("fp32", "int8")
    }
    ratios = {}
    for pair in results(run)["comparisons"]:
        for precision in ("fp32", "int8"):
            if pair["metric"] == "latency" and (pair["a"], pair["b"]) == (
                f"specialised {precision}",
                f"shared {precision}",
            ):
                ratios[precision] = {key: pair[key] for key in ("ratio", "low", "high")}
    return {"max_abs_difference_of_a_probability": pairs, "latency_of_specialised_over_shared": ratios}


def help_cost(repeats: int = 20) -> dict[str, Any]:
    """Whole processes, in turn."""
    commands = {"help": ["-m", "edgetl", "--help"], "click": ["-c", "import click"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
    ratios = [a / b for a, b in zip(seconds["help"], seconds["click"], strict=True)]
    return {"seconds": {name: spread(one) for name, one in seconds.items()}, "ratio": spread(ratios)}


MEMORY = """
import sys
from pathlib import Path
from edgetl.artifacts.files import sha256_file
from edgetl.artifacts.data_index import Sample
from edgetl.config import Backbone
from edgetl.data.scenes.one_object import LABELS, render_scenes
from edgetl.graph.simplify import simplify
from edgetl.train.backbones import load_backbone
from edgetl.train.onnx_export import export_trunk
from edgetl.train.feature_cache import View, cached_features, make_extractor
root, images = Path(sys.argv[1]), int(sys.argv[2])
paths = sorted(root.rglob("*.png"))[:images]
samples = [Sample(path=str(p.relative_to(root)), label="x", sha256=sha256_file(p)) for p in paths]
backbone = load_backbone(Backbone(name="edgetl/nano", image_size=64), Path(), 0)
extract = make_extractor(backbone.trunk, simplify(export_trunk(backbone)))
cached_features(backbone, extract, samples, root, View(), Path(sys.argv[3]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory() -> dict[str, Any]:
    """Peak resident memory of a process that extracts the features of 1,000 and of 10,000 images."""
    from edgetl.data.scenes.one_object import LABELS, render_scenes

    peaks = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "images"
        list(render_scenes(root, LABELS, 500, seed=0))
        for images in (1_000, 10_000):
            command = [sys.executable, "-W", "ignore", "-c", MEMORY, str(root), str(images), f"{scratch}/cache{images}"]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}
            )
            peaks[str(images)] = int(done.stdout) / 1024
    return {"peak_mb": peaks, "ratio": peaks["10000"] / peaks["1000"]}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
