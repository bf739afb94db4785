"""INT8 in a study: accuracy control, and heads that are trained for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra train is not installed")

from safetensors.numpy import load_file

from edgetl.artifacts.accuracy_control_record import StudyAccuracyControl
from edgetl.artifacts.bundle import Bundle
from edgetl.artifacts.calibration_table import CalibrationTable
from edgetl.artifacts.data_index import DataIndex
from edgetl.artifacts.files import read_json
from edgetl.artifacts.results import Results
from edgetl.artifacts.run_directory import RunDirectory
from edgetl.cli import main
from edgetl.data.stream import to_input
from edgetl.graph.model import load_model, with_outputs
from edgetl.graph.parity import run
from edgetl.graph.snr import snr_db

AWARE = {"training": {"quantization_aware": True}}
NANO = {"name": "edgetl/nano", "image_size": 16, "cut": "features.3"}
# A probe that is held back so strongly leaves tuning something to gain.
HELD_BACK = {"quantization_aware": True, "l2": [1.0]}


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


@pytest.fixture(scope="module", params=["onnxruntime", "tensorrt-rtx"])
def tuned(tmp_path_factory: pytest.TempPathFactory, write_study: Callable, request: pytest.FixtureRequest) -> Path:
    """A study whose layers above a cut were tuned for INT8, and its graphs. Not to be changed."""
    if request.param != "onnxruntime":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path_factory.mktemp("tuned")
    training = HELD_BACK | {"finetune": {"epochs": 8, "learning_rate": 0.003}}
    finetune_and_export(
        write_study(
            folder, backbone=NANO, runtime=request.param, deployments=["combined", "cascade"], training=training
        )
    )
    return folder


def finetune_and_export(study: Path) -> None:
    for command in ("finetune", "export"):
        with pytest.raises(SystemExit) as end:
            main([command, str(study), "-o", str(study.parent / "run")])
        assert end.value.code == 0


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
    assert bundle.int8 is not None and bundle.int8.qdq_format == "onnxruntime"
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


def test_what_is_tuned_above_a_cut_learns_as_the_int8_graph_computes(tuned: Path) -> None:
    """Nearly: shortcuts (and outputs, for ONNX Runtime) are not rounded in training, and ranges are of fewer images."""
    directory = RunDirectory(tuned / "run")
    bundle = read_json(directory.bundle / "bundle.json", Bundle)
    assert bundle.int8 is not None
    (file,) = directory.cache.glob("tuned/*.safetensors")
    said, images = load_file(file)["combined/val_features"], images_of(directory)
    features = f"combined@{NANO['cut']}/features"
    near = {}
    for precision in ("int8.onnxruntime", "int8.tensorrt", "fp32"):
        graph = load_model(directory.graphs / f"combined@{NANO['cut']}.{precision}.onnx")
        near[precision] = snr_db(run(with_outputs(graph, [features]), images)[features], said)
    own = near.pop(f"int8.{bundle.int8.qdq_format}")
    assert own > 30.0 and own > max(near.values()) + 1.5, (own, near)


def test_tuning_for_int8_leaves_float_weights_and_frozen_ranges_alone(tuned: Path) -> None:
    directory = RunDirectory(tuned / "run")
    frozen, whole = (
        read_json(folder / "calibration.json", CalibrationTable).by_name()
        for folder in (directory.bundle, directory.graphs)
    )
    assert frozen.items() <= whole.items(), "heads on the frozen trunk learned with these ranges"
    assert any(name.startswith(f"combined@{NANO['cut']}/") for name in whole.keys() - frozen.keys())
    states = load_file(directory.bundle / "branches.safetensors")
    weights = {name: value for name, value in states.items() if value.ndim > 1}
    assert weights
    for name, weight in weights.items():
        steps = 127 * weight[0] / np.abs(weight[0]).max()
        assert np.abs(steps - np.rint(steps)).max() > 0.1, f"{name} was rounded for good"


def test_a_head_on_a_cut_learns_what_the_int8_graph_hands_it(tmp_path: Path, write_study: Callable) -> None:
    still = HELD_BACK | {"finetune": {"epochs": 1, "learning_rate": 1e-9}}
    finetune_and_export(
        write_study(tmp_path, backbone=NANO | {"truncate": True}, deployments=["combined"], training=still)
    )
    directory = RunDirectory(tmp_path / "run")
    head = f"combined@truncated-{NANO['cut']}"
    said = load_file(directory.bundle / "validation.safetensors")[f"head/{head}"]
    apart = {
        precision: np.abs(run(directory.graphs / f"{head}.{precision}.onnx", images_of(directory))[head] - said).max()
        for precision in ("int8.onnxruntime", "fp32")
    }
    assert apart["int8.onnxruntime"] < 1e-4 and apart["int8.onnxruntime"] < 0.1 * apart["fp32"], apart


def test_tuning_for_int8_and_for_float_are_kept_apart(tmp_path: Path, call: Callable, write_study: Callable) -> None:
    training = {"finetune": {"epochs": 1}}
    study = write_study(tmp_path, backbone=NANO, deployments=["combined"], training=training)
    weights = {}
    for flags in ([], ["--quantization-aware"], []):
        done = call("finetune", study, "-o", tmp_path / "run", *flags)
        assert done.returncode == 0, done.stderr
        weights.setdefault(bool(flags), []).append((tmp_path / "run" / "bundle" / "branches.safetensors").read_bytes())
    assert weights[False][0] == weights[False][1] != weights[True][0]
    assert f"the layers above {NANO['cut']} come from the cache" in done.stderr + done.stdout


def test_accuracy_control_tells_layers_and_a_missed_budget(copied: Path, call: Callable, write_study: Callable) -> None:
    study, directory = (
        write_study(copied, calibration="mse", accuracy_control={"max_accuracy_drop": 0.5}),
        RunDirectory(copied / "run"),
    )
    done = call("run", study, "-o", directory.path, "--threads", 1, "--seconds", 0.2)
    assert done.returncode == 0, done.stderr
    results = read_json(directory.results, Results)
    guard = read_json(directory.accuracy_control, StudyAccuracyControl).formats["onnxruntime"]
    assert results.accuracy_control == guard and set(guard.fp32) == {"combined", "shared"}
    assert "INT8 by mse keeps its accuracy in all layers" in " ".join(done.stdout.split())
    assert "INT8 and its accuracy control" in directory.report.read_text(encoding="utf-8")
