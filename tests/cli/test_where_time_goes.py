"""Layers, energy, memory and the way from file to answer, in the console program and in a study's results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
STEPS = ["decode", "preprocess", "inference", "post-process"]


def test_a_models_layers_and_its_way_are_printed(call: Command, finished: Path, photos: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    done = call("profile", graph, "--layers", "--images", photos, "--threads", 1, "--seconds", 0.2)
    assert done.returncode == 0, done.stderr
    assert "with ONNX Runtime's profiler" in done.stdout
    assert "trunk and heads" in done.stdout
    assert "from file to answer" in done.stdout
    assert "memory: " in done.stdout and "energy: " in done.stdout


def test_the_same_figures_are_there_for_programs(call: Command, finished: Path, photos: Path) -> None:
    graph = finished / "run" / "graphs" / "shared.fp32.onnx"
    options = ("--layers", "--images", photos, "--threads", 1, "--seconds", 0.2, "--json")
    (row,) = json.loads(call("profile", graph, *options).stdout)["deployments"]
    (layers,) = row["layers"]
    parts = {part["name"]: part["fraction"] for part in layers["parts"]}
    assert {"trunk", "round", "ángulo"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(1.0, abs=1e-3)
    assert [step["name"] for step in row["waterfall"]["steps"]] == STEPS
    assert row["memory"]["process_mb"] == row["memory_mb"]


def test_a_study_has_the_way_of_every_deployment_and_the_reason_for_no_energy(finished: Path) -> None:
    results = json.loads((finished / "run" / "results.json").read_text())
    ran = [row for row in results["deployments"] if row["unsupported"] is None]
    assert ran
    for row in ran:
        assert [step["name"] for step in row["waterfall"]["steps"]] == STEPS
        assert row["memory"]["process_mb"] == row["memory_mb"]
        assert row["energy"]["mj"] == row["energy_mj"]
        assert (row["energy"]["reason"] is None) == (row["energy_mj"] is not None)
    assert "From file to answer" in (finished / "run" / "report.html").read_text()


def test_a_study_tells_layers_when_it_is_asked(call: Command, copied: Path) -> None:
    study, run = copied / "study.yaml", copied / "run"
    options = ("-o", run, "--threads", 1, "--seconds", 0.2, "--layers", "--no-energy", "--json")
    rows = json.loads(call("profile", study, *options).stdout)["deployments"]
    ran = [row for row in rows if row["unsupported"] is None]
    assert all(len(row["layers"]) == len(row["engines"]) for row in ran)
    assert all(layer["node"] for row in ran for layer in row["layers"][0]["layers"] if layer["operator"] == "Conv")
    assert all(row["energy"] is None for row in ran)


def test_a_study_whose_images_are_gone_is_measured_without_them(call: Command, copied: Path) -> None:
    for image in (copied / "run" / "data").rglob("*.png"):
        image.rename(image.with_suffix(".gone"))
    done = call("profile", copied / "study.yaml", "-o", copied / "run", "--threads", 1, "--seconds", 0.2, "--json")
    assert done.returncode in {0, 1}
    if done.returncode == 0:
        assert all(row["waterfall"] is None for row in json.loads(done.stdout)["deployments"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--images", "none"), "none is not a folder"),
        (("--layers", "--cuda-graph"), "no --cuda-graph"),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_measured(
    options: tuple[str, ...], reason: str, call: Command, fault: Callable[[Done], str], finished: Path
) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    assert reason in fault(call("profile", graph, *options, "--seconds", 30))


def test_images_are_for_models(call: Command, finished: Path, photos: Path) -> None:
    done = call("profile", finished / "study.yaml", "-o", finished / "run", "--images", photos)
    assert done.returncode == 2 and "--images is for models" in done.stderr
