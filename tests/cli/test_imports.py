"""What a command may import: help is instant, and the device side has no torch."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.cli import COMMANDS

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]

HEAVY = {"torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "pydantic", "yaml", "rich", "PIL", "sklearn"}
TRAINING = {"torch", "torchvision", "timm"}


@pytest.fixture
def imported(edgetl: Command) -> Callable[..., set[str]]:
    """The packages that a command imports, as Python itself logs them; the command must succeed."""

    def imported(*arguments: object) -> set[str]:
        done = edgetl(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        packages = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
        assert "click" in packages  # the log is there
        return packages

    return imported


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command: str | None, imported: Callable[..., set[str]]) -> None:
    arguments = ["--help"] if command is None else [command, "--help"]
    assert imported(*arguments) & HEAVY == set()


@pytest.mark.parametrize("command", ["build-engine", "evaluate", "profile", "report"])
def test_the_device_side_does_its_work_without_torch(
    command: str, imported: Callable[..., set[str]], copied: Path
) -> None:
    run = copied / "run"
    (run / "stages" / f"{command}.json").unlink()
    options = ["--threads", 1, "--seconds", 0.1] if command == "profile" else []
    assert imported(command, copied / "study.yaml", "-o", run, *options) & TRAINING == set()
    assert (run / "stages" / f"{command}.json").exists()


def test_plain_files_need_no_torch(imported: Callable[..., set[str]], finished: Path, tmp_path: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    images = finished / "run" / "data"
    prepared = tmp_path / "int8.onnx"
    int8 = ["--precision", "int8", "--calibration-images", images]
    assert imported("prepare", graph, *int8, "--target", "onnxruntime", "-o", prepared) & TRAINING == set()
    assert imported("build-engine", graph, *int8, "-o", tmp_path / "int8.engine.onnx") & TRAINING == set()
    assert imported("profile", graph, prepared, "--seconds", 0.1) & TRAINING == set()


def test_predicting_needs_no_torch(imported: Callable[..., set[str]], finished: Path, tmp_path: Path) -> None:
    graph, images = finished / "run" / "graphs" / "combined.fp32.onnx", finished / "run" / "data"
    packages = imported("predict", graph, images, "-o", tmp_path / "drawn")
    assert packages & TRAINING == set() and "av" not in packages
