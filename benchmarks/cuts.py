"""How deep to freeze and to share: a sweep of the cut on CIFAR-10, run twice with one seed.

Says what tuning above each cut gained on validation, which trees were measured and how the cost estimate ranked them,
and whether the second run came to the same bundle, the same shortlist and the same verdict.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import MATERIAL, save
from scipy.stats import spearmanr

STUDY = """
name: how-deep-to-share
data: {{format: image-folder, root: images, train: train, val: 0.2, test: test}}
groups:
  vehicles: [airplane, automobile, ship, truck]
  animals: [bird, cat, deer, dog, frog, horse]
backbone: {{name: torchvision/mobilenet_v2, weights: {weights}, image_size: 96, cut: sweep, truncate: true}}
deployments: [combined, specialised, shared, branched, cascade]
precisions: [fp32, int8]
budget: {{max_accuracy_drop: 0.02}}
training: {{finetune: {{epochs: {epochs}, patience: 2}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=MATERIAL / "datasets" / "cifar10")
    weights = MATERIAL / "backbones" / "mobilenet_v2" / "mobilenet_v2.torchvision.safetensors"
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--train-per-label", type=int, default=125)
    parser.add_argument("--test-per-label", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--report", type=Path, help="where to keep the first run's report.html")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = write_study(options, Path(scratch))
        runs = [Path(scratch) / name for name in ("first", "second")]
        seconds = [run_study(study, run) for run in runs]
        results = [json.loads((run / "results.json").read_text()) for run in runs]
        figures = {
            "images": results[0]["data"]["images"],
            "seconds_for_the_study": seconds,
            "tuning": tuning(results[0]),
            "trees": trees(results[0]),
            "measured": measured(results[0]),
            "second_run": {
                "same_bundle": digest(runs[0] / "bundle") == digest(runs[1] / "bundle"),
                "same_shortlist": results[0]["trees"] == results[1]["trees"],
                "verdicts": [one["verdict"] for one in results],
            },
        }
        if options.report:
            shutil.copy(runs[0] / "report.html", options.report)
        save(options.output, "cuts", figures, threads=1)


def write_study(options: argparse.Namespace, folder: Path) -> Path:
    """A study of the first images of every label, copied."""
    for split, count in {"train": options.train_per_label, "test": options.test_per_label}.items():
        for label in sorted((options.data / split).iterdir()):
            target = folder / "images" / split / label.name
            target.mkdir(parents=True)
            for image in sorted(label.iterdir())[:count]:
                shutil.copy(image, target / image.name)
    study = folder / "study.yaml"
    study.write_text(STUDY.format(weights=options.weights.resolve(), epochs=options.epochs))
    return study


def run_study(study: Path, run: Path) -> float:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "edgetl", "run", str(study), "-o", str(run), "--threads", "1", "--seconds", "60"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def tuning(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What tuning above each cut gained on validation over the probe on frozen layers, in points."""
    return [
        {
            "head": head["name"],
            "epochs": head["epochs"],
            "val_accuracy": head["val_accuracy"],
            "gained_points": 100 * (head["val_accuracy"] - head["probe_val_accuracy"]),
        }
        for head in results["training"]["heads"]
        if head["epochs"] is not None
    ]


def trees(results: dict[str, Any]) -> dict[str, Any]:
    rows = {row["name"]: row for row in results["deployments"] if row["precision"] == "fp32" and row["latency_ms"]}
    pairs = [
        (tree["relative_latency"], rows[tree["name"]]["latency_ms"]["p50"])
        for tree in results["trees"]
        if tree["name"] in rows
    ]
    estimated, taken = np.array(pairs).T
    return {
        "considered": len(results["trees"]),
        "measured": len(pairs),
        "rank_correlation_of_estimate_and_latency": float(spearmanr(estimated, taken).statistic),
    }


def measured(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": row["name"],
            "precision": row["precision"],
            "accuracy": row["accuracy"]["overall"],
            "latency_ms": {key: row["latency_ms"][key] for key in ("p50", "low", "high", "stable")},
            "flops": row["flops"],
        }
        for row in results["deployments"]
    ]


def digest(folder: Path) -> str:
    """Of all files of a folder, names and contents."""
    parts = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(folder.iterdir())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    main()
