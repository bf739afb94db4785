"""The device side: a run directory from the workstation, an environment with the oldest core packages and no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEVICE = os.environ.get("EDGETL_EDGE_PYTHON", "")

pytestmark = pytest.mark.skipif(not DEVICE, reason="no environment without torch is named; run make test-edge")

STUDY = """
name: edge
data: {format: digits, per_label: 60, val: 0.2, test: 0.3}
groups: {round: [0, 6, 8, 9], straight: [1, 4, 7], curved: [2, 3, 5]}
backbone: {name: edgetl/nano, image_size: 32, cut: [features.3], truncate: true}
deployments: [combined, specialised, shared, branched, cascade, one-vs-rest]
precisions: [fp32, int8]
training: {finetune: {epochs: 2}}
search: {trees: 1}
"""

DETECTION = """
name: edge-boxes
task: detect
data: {format: synthetic, scenes: 60, val: 0.25, test: 0.25}
groups: {vehicles: [car, bus], signs: [stop, yield]}
backbone: {name: edgetl/nano, image_size: 96}
deployments: [combined, specialised, shared, cascade]
precisions: [fp32, int8]
detection: {epochs: 15, batch_size: 8, learning_rate: 0.02, pyramid_channels: 16}
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


def _run(python: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / python) if "/" in python and not Path(python).is_absolute() else python]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd="/", timeout=300
    )


def _done(folder: Path, study: str) -> Path:
    """A study done up to the report where torch is."""
    (folder / "study.yaml").write_text(study)
    done = _run(sys.executable, "-m", "edgetl", "run", folder / "study.yaml", "-o", folder / "run", "--seconds", 1)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def workstation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _done(tmp_path_factory.mktemp("workstation"), STUDY)


@pytest.fixture(scope="module")
def device(workstation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder, copied to the device."""
    return Path(shutil.copytree(workstation, tmp_path_factory.mktemp("device") / "copied"))


def _edgetl(device: Path, command: str, *options: object) -> subprocess.CompletedProcess[str]:
    return _run(DEVICE, "-m", "edgetl", command, device / "study.yaml", "-o", device / "run", *options)


def test_the_device_has_no_torch() -> None:
    for package in ("torch", "torchvision", "timm", "sklearn", "safetensors", "onnxsim"):
        assert _run(DEVICE, "-c", f"import {package}").returncode != 0


def test_engines_of_the_workstation_are_refused_on_the_device(device: Path) -> None:
    here = _run(DEVICE, "-c", "import onnxruntime; print(onnxruntime.__version__)").stdout.strip()
    done = _edgetl(device, "evaluate")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert f"this machine has onnxruntime {here}" in last
    assert "run edgetl build-engine here" in last


def _rebuild(device: Path) -> None:
    for command, *options in (
        ["build-engine"],
        ["evaluate"],
        ["profile", "--threads", 1, "--seconds", 1],
        ["report"],
    ):
        done = _edgetl(device, command, *options)
        assert done.returncode == 0, done.stderr


def test_the_device_builds_evaluates_profiles_and_reports(workstation: Path, device: Path) -> None:
    _rebuild(device)
    there, here = (json.loads((folder / "run" / "results.json").read_text()) for folder in (workstation, device))
    assert here["environment"]["packages"].keys().isdisjoint({"torch", "torchvision", "timm"})
    for a, b in zip(there["deployments"], here["deployments"], strict=True):
        assert (a["name"], a["precision"]) == (b["name"], b["precision"])
        # Another version of the runtime may round an INT8 tie the other way: one image in fifty, no more.
        tolerance = 0.02 if a["precision"] == "int8" else 1e-9
        assert b["accuracy"]["overall"]["value"] == pytest.approx(a["accuracy"]["overall"]["value"], abs=tolerance)
    assert "<html" in (device / "run" / "report.html").read_text()


def test_the_device_does_the_same_for_detectors(tmp_path: Path) -> None:
    workstation = _done(tmp_path, DETECTION)
    device = Path(shutil.copytree(workstation, tmp_path / "copied"))
    _rebuild(device)
    there, here = (json.loads((folder / "run" / "results.json").read_text()) for folder in (workstation, device))
    assert here["environment"]["packages"].keys().isdisjoint({"torch", "torchvision", "timm"})
    assert here["metric"] == "mAP@0.5"
    for a, b in zip(there["deployments"], here["deployments"], strict=True):
        assert (a["name"], a["precision"]) == (b["name"], b["precision"])
        # Another version of the runtime rounds otherwise, which may turn the order of two boxes.
        tolerance = 0.05 if a["precision"] == "int8" else 0.01
        assert b["accuracy"]["overall"]["value"] == pytest.approx(a["accuracy"]["overall"]["value"], abs=tolerance)
    assert max(row["accuracy"]["overall"]["value"] for row in here["deployments"]) > 0.1
    scene = next((device / "run" / "data" / "road-scenes").glob("*.png"))
    graph = device / "run" / "graphs" / "shared.fp32.onnxruntime.onnx"
    done = _run(DEVICE, "-m", "edgetl", "predict", graph, scene, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"]


def test_training_on_the_device_says_what_is_missing(device: Path) -> None:
    study = device / "other.yaml"
    study.write_text(STUDY.replace("per_label: 60", "per_label: 50"))
    done = _run(DEVICE, "-m", "edgetl", "finetune", study, "-o", device / "other")
    assert done.returncode == 1
    assert "pip install 'edgetl[train]'" in done.stderr.strip().splitlines()[-1]


def test_a_plain_onnx_file_is_prepared_and_profiled_on_the_device(device: Path) -> None:
    graph = device / "run" / "graphs" / "combined.fp32.onnx"
    images = device / "run" / "data"
    prepared = device / "prepared.onnx"
    done = _run(
        DEVICE, "-m", "edgetl", "prepare", graph, "--precision", "int8", "--target", "onnxruntime",
        "--calibration-images", images, "-o", prepared,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = _run(DEVICE, "-m", "edgetl", "profile", prepared, "--against", graph, "--seconds", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["deployments"]] == [str(prepared), str(graph)]
