"""INT8 in a study: its guard, and heads that are trained for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra train is not installed")

from safetensors.numpy import load_file

from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.calibration import CalibrationTable
from edgetl.artifacts.files import read_json
from edgetl.artifacts.guard import StudyGuard
from edgetl.artifacts.index import DataIndex
from edgetl.artifacts.results import Results
from edgetl.artifacts.run import RunDirectory
from edgetl.cli import main
from edgetl.data.stream import to_input
from edgetl.graph.parity import run

AWARE = {"training": {"quantization_aware": True}}
# A probe that is held back so strongly leaves tuning something to gain.
TUNED = {
    "backbone": {"name": "edgetl/nano", "image_size": 16, "cut": ["images", "features.3"], "truncate": True},
    "deployments": ["combined", "branched", "cascade"],
    "training": {"quantization_aware": True, "regularisation": [1.0], "finetune": {"epochs": 2}},
    "search": {"trees": 4},
}


@pytest.fixture(scope="module")
def aware(tmp_path_factory: pytest.TempPathFactory, write_study: Callable) -> Path:
    """A study whose heads were trained for INT8 by the flag, and its graphs. Not to be changed."""
    folder = tmp_path_factory.mktemp("aware")
    study = write_study(folder, deployments=["combined", "cascade"])
    for command in (["finetune", "--quantization-aware"], ["export"]):
        with pytest.raises(SystemExit) as end:
            main([*command, str(study), "-o", str(folder / "run")])
        assert end.value.code == 0
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, write_study: Callable) -> Path:
    """A study that was trained for INT8 above a cut too, and its graphs. Not to be changed."""
    folder = tmp_path_factory.mktemp("tuned")
    study = write_study(folder, **TUNED)
    for command in ("finetune", "export"):
        with pytest.raises(SystemExit) as end:
            main([command, str(study), "-o", str(folder / "run")])
        assert end.value.code == 0
    return folder


def images_of(run_directory: RunDirectory) -> np.ndarray:
    index = read_json(run_directory.index, DataIndex)
    return to_input(np.stack([resized(run_directory.path / sample.path) for sample in index.val]))


def resized(path: Path) -> np.ndarray:
    image = Image.open(path).convert("RGB")
    return np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))


def test_what_heads_said_in_training_is_what_the_int8_graph_says(aware: Path) -> None:
    directory = RunDirectory(aware / "run")
    said = load_file(directory.bundle / "validation.safetensors")["head/combined"]
    graphs = {
        name: directory.graphs / f"combined.{name}.onnx" for name in ("int8.onnxruntime", "int8.tensorrt", "fp32")
    }
    images = images_of(directory)
    apart = {name: float(np.abs(run(path, images)["combined"] - said).max()) for name, path in graphs.items()}
    assert apart["int8.onnxruntime"] < 1e-4
    assert min(apart["int8.tensorrt"], apart["fp32"]) > 10 * apart["int8.onnxruntime"]
    bundle = read_json(directory.bundle / "bundle.json", Bundle)
    assert bundle.int8 is not None and bundle.int8.spelling == "onnxruntime"
    tables = [
        read_json(folder / "calibration.json", CalibrationTable) for folder in (directory.bundle, directory.graphs)
    ]
    assert tables[0] == tables[1], "the scales that heads were trained with are those that are exported"


def test_a_study_can_say_what_the_flag_says(aware: Path, tmp_path: Path, call: Callable, write_study: Callable) -> None:
    study = write_study(tmp_path, deployments=["combined", "cascade"], **AWARE)
    assert call("finetune", study, "-o", tmp_path / "run").returncode == 0
    for name in ("heads.safetensors", "calibration.json"):
        assert (tmp_path / "run" / "bundle" / name).read_bytes() == (aware / "run" / "bundle" / name).read_bytes()


def test_heads_that_were_not_trained_for_int8_are_not_taken_for_such(
    copied: Path, call: Callable, fault: Callable, write_study: Callable
) -> None:
    study = write_study(copied, **AWARE)
    assert "were not trained for INT8, and the study says quantization_aware; run edgetl finetune again" in fault(
        call("export", study, "-o", copied / "run")
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"precisions": ["fp32"]}, "is for int8; add int8 to precisions")],
)
def test_what_cannot_be_trained_for_int8_is_refused_in_a_line(
    changes: dict, message: str, tmp_path: Path, call: Callable, fault: Callable, write_study: Callable
) -> None:
    flag = call("finetune", write_study(tmp_path, **changes), "-o", tmp_path / "run", "--quantization-aware")
    assert message in fault(flag)
    assert message in fault(call("finetune", write_study(tmp_path, **changes, **AWARE), "-o", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_above_a_cut_too_training_says_what_the_int8_graph_says(tuned: Path) -> None:
    """To rounding below the cut. Above it near: shortcuts are not rounded in training, ranges are of fewer images."""
    directory = RunDirectory(tuned / "run")
    bundle = read_json(directory.bundle / "bundle.json", Bundle)
    said, images = load_file(directory.bundle / "validation.safetensors"), images_of(directory)
    apart: dict[str, dict[str, float]] = {"int8.onnxruntime": {}, "fp32": {}}
    for precision, differences in apart.items():
        for path in directory.graphs.glob(f"*.{precision}.onnx"):
            if path.name.startswith("cascade"):
                continue  # its second level is no graph of images
            for name, found in run(path, images).items():
                differences[name] = float(np.abs(found - said[f"head/{name}"]).mean())
    print(apart)
    heads = [head for head in bundle.heads if head.name in apart["fp32"]]
    assert {head.place for head in heads} >= {"top", "features.3"}
    for head in heads:
        name = head.name
        if head.epochs is None:
            assert apart["int8.onnxruntime"][name] < 1e-5 < apart["fp32"][name]
        else:
            assert apart["int8.onnxruntime"][name] < 0.01


def test_a_guarded_study_tells_the_mix_and_a_missed_budget(copied: Path, call: Callable, write_study: Callable) -> None:
    study, directory = write_study(copied, guard={"max_accuracy_drop": 0.5}), RunDirectory(copied / "run")
    done = call("run", study, "-o", directory.path, "--threads", 1, "--seconds", 0.2)
    assert done.returncode == 0, done.stderr
    results = read_json(directory.results, Results)
    guard = read_json(directory.guard, StudyGuard).spellings["onnxruntime"]
    assert results.guard == guard and set(guard.fp32) == {"combined", "shared"}
    assert "INT8 by mse keeps its accuracy in all layers" in " ".join(done.stdout.split())
    assert "INT8 and its guard" in directory.report.read_text(encoding="utf-8")
