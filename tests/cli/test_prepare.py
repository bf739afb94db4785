"""One plain ONNX file: prepared in another precision, and built into engines, by the commands a user types."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]

RUNTIMES = [["--runtime", "onnxruntime"], ["--runtime", "tensorrt-rtx", "--compute-capability", "SM86"]]


@pytest.fixture(scope="module")
def graph(finished: Path) -> Path:
    return finished / "run" / "graphs" / "shared.fp32.onnx"


@pytest.fixture(scope="module")
def images(finished: Path) -> Path:
    return finished / "run" / "data"


def _weights_by_type(path: Path) -> Counter[int]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return Counter(tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4)


def _choices(path: Path, images: Path) -> dict[str, np.ndarray]:
    """What each head of a graph chooses for sixty images, by ONNX Runtime alone."""
    files = sorted(images.rglob("*.png"))[::4]
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB").resize((16, 16)), np.float32) for file in files])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"images": pixels.transpose(0, 3, 1, 2) / np.float32(255)})
    return {info.name: value.argmax(axis=1) for info, value in zip(session.get_outputs(), outputs, strict=True)}


def _assert_they_agree(a: Path, b: Path, images: Path, at_least: float) -> None:
    first, second = _choices(a, images), _choices(b, images)
    assert first.keys() == second.keys() == {"round", "ángulo"}
    for name in first:
        assert (first[name] == second[name]).mean() >= at_least


def test_fp16_halves_weights_and_keeps_the_interface(
    edgetl: Command, graph: Path, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "half.onnx"
    done = edgetl("prepare", graph, "--precision", "fp16", "-o", output)
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
    assert set(_weights_by_type(output)) == {TensorProto.FLOAT16}
    assert output.stat().st_size < 0.6 * graph.stat().st_size
    model = onnx.load(output)
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    _assert_they_agree(graph, output, images, at_least=0.95)


@pytest.mark.parametrize(("target", "activations"), [("tensorrt", np.int8), ("onnxruntime", np.uint8)])
def test_prepare_int8_writes_the_spelling_of_the_target_the_same_every_time(
    target: str, activations: type, edgetl: Command, graph: Path, images: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    for output in (first, second):
        options = ["--calibration-images", images, "--target", target, "-o", output]
        done = edgetl("prepare", graph, "--precision", "int8", *options)
        assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
        assert done.stderr.startswith(f"calibrating on 240 images of {images} by auto\n")
    assert first.read_bytes() == second.read_bytes()
    model = onnx.load(first)
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zeros = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and {zero.dtype for zero in zeros} == {np.dtype(activations)}
    if target == "tensorrt":
        assert not any(zero.any() for zero in zeros)
    _assert_they_agree(graph, first, images, at_least=0.85)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=["onnxruntime", "tensorrt-rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_build_engine_builds_a_plain_file_in_every_precision_the_runtime_runs(
    precision: str, runtime: list[str], edgetl: Command, graph: Path, images: Path, tmp_path: Path
) -> None:
    if "tensorrt-rtx" in runtime:
        pytest.importorskip("tensorrt_rtx")
    output = tmp_path / "engine"
    calibration = ["--calibration-images", images] if precision == "int8" else []
    command = ["build-engine", graph, *runtime, "--precision", precision, *calibration, "-o", output]
    done = edgetl(*command)
    if precision == "fp16" and "onnxruntime" in runtime:
        assert done.returncode == 1
        assert done.stderr.startswith("error: onnxruntime cannot run fp16: ")
        assert list(tmp_path.iterdir()) == []
        return
    assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
    assert "build-engine: built in " in done.stderr
    manifest = json.loads((tmp_path / "engine.json").read_text())
    assert manifest["bytes"] == output.stat().st_size > 10_000
    assert manifest["target"].get("compute capability") == ("SM86" if "SM86" in runtime else None)
    prepared = set() if precision == "fp32" else {"engine.prepared.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"engine", "engine.json"} | prepared


def test_an_engine_that_is_up_to_date_is_not_built_again(edgetl: Command, graph: Path, tmp_path: Path) -> None:
    command = ["build-engine", graph, "-o", tmp_path / "engine.onnx"]
    assert edgetl(*command).stderr.startswith("build-engine: built in ")
    written = (tmp_path / "engine.onnx").stat().st_mtime_ns
    assert edgetl(*command).stderr.startswith("build-engine: up to date")
    assert (tmp_path / "engine.onnx").stat().st_mtime_ns == written


def test_without_o_an_engine_is_named_by_precision_and_runtime(call: Command, graph: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.onnx"
    copy.write_bytes(graph.read_bytes())
    assert call("build-engine", copy).stdout == f"{tmp_path}/m.fp32.onnxruntime.onnx\n"
    assert (tmp_path / "m.fp32.onnxruntime.onnx").is_file()


def test_a_compute_capability_that_the_runtime_does_not_know(
    call: Command, fault: Callable[[Done], str], graph: Path, tmp_path: Path
) -> None:
    output = tmp_path / "engine"
    assert "takes no compute capability" in fault(
        call("build-engine", graph, "--compute-capability", "SM86", "-o", output)
    )
    pytest.importorskip("tensorrt_rtx")
    rtx = ["--runtime", "tensorrt-rtx", "--compute-capability", "SM53"]
    line = fault(call("build-engine", graph, *rtx, "-o", output))
    assert "cannot build for compute capability SM53; it knows SM" in line
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_graph_is_not_prepared_again(
    call: Command, fault: Callable[[Done], str], finished: Path, images: Path, tmp_path: Path
) -> None:
    prepared = finished / "run" / "graphs" / "shared.int8.tensorrt.onnx"
    int8 = ["--precision", "int8", "--calibration-images", images, "-o", tmp_path / "twice.onnx"]
    assert "FP32" in fault(call("prepare", prepared, *int8)).upper()
    assert list(tmp_path.iterdir()) == []


def test_compare_says_where_int8_leaves_fp32(call: Command, graph: Path, images: Path, tmp_path: Path) -> None:
    call("prepare", graph, "--precision", "int8", "--calibration-images", images, "-o", tmp_path / "i.onnx")
    command = ["compare", graph, tmp_path / "i.onnx", "--images", images, "--limit", 20]
    shown = call(*command)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "20 images\n" in shown.stdout
    assert "the same class for" in shown.stdout
    assert "layers with the most noise" in shown.stdout
    found = json.loads(call(*command, "--json").stdout)
    assert (found["schema_version"], found["images"], len(found["worst_images"])) == (1, 20, 10)
    assert {output["output"] for output in found["outputs"]} == {"round", "ángulo"}
    assert all(5 < layer["snr_db"] < 120 for layer in found["layers"])


def test_the_record_tells_how_a_budget_was_met(call: Command, finished: Path, photos: Path, tmp_path: Path) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    for label in ("2", "3", "5", "9"):  # no classes of this study
        for file in (photos / label).iterdir():
            file.unlink()
    budget = ["--max-accuracy-drop", "0.5", "--eval-images", photos]
    options = ["--precision", "int8", "--calibration-images", photos, "-o", tmp_path / "i.onnx"]
    done = call("prepare", graph, *options, *budget)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "i.onnx.json").read_text())
    assert record["accuracy_control"]["attempts"][record["accuracy_control"]["chosen"]]["drop"] <= 0.5
    assert record["calibration"]["tensors"][0]["scale"] > 0


def test_the_commands_of_the_guide_run_one_after_another(
    call: Command, finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    shutil.copy(finished / "run" / "graphs" / "combined.fp32.onnx", "m.onnx")
    shutil.copy(root / "calibration" / "mse.yaml", "mse.yaml")
    plain = onnx.load("m.onnx")
    del plain.metadata_props[:]
    onnx.save(plain, "plain.onnx")
    for label in ("0", "1", "4", "6", "7", "8"):
        shutil.copytree(photos / label, Path("labelled") / label)
    guide = (root / "docs" / "precision.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```console\n(.*?)```", guide, flags=re.S) for line in block.splitlines()]
    assert len(commands) == 8
    for line in commands:
        done = call(*shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert Path("m.qdq.onnx").read_bytes() == Path("m.back.onnx").read_bytes()
