"""Models that share layers, fused by the command a user types: edgetl's own and such as torch exports elsewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Fault = Callable[[Done], str]

SIZE = 32
MOVED = "features.12.conv.1.1"  # a batch norm in the middle of the trunk


# --- models that were trained elsewhere ------------------------------------------------------------------------------


def _frozen_trunk() -> torch.nn.Module:
    """MobileNetV2 as somebody has it before heads are trained: batch norm has seen data."""
    torch.manual_seed(0)
    trunk = torchvision.models.mobilenet_v2(weights=None).train()
    with torch.no_grad():
        trunk(torch.rand(4, 3, SIZE, SIZE))
    return trunk.eval().requires_grad_(False)


def _train_head(trunk: torch.nn.Module, classes: int, left_in_training: str = "") -> None:
    """A linear head, trained for some steps. A batch norm that was left in training mode goes on counting."""
    trunk.classifier = torch.nn.Linear(1280, classes)
    if left_in_training:
        trunk.get_submodule(left_in_training).train()
    optimiser = torch.optim.SGD(trunk.classifier.parameters(), lr=0.1)
    for _ in range(2):
        images, labels = torch.rand(4, 3, SIZE, SIZE) ** 2, torch.randint(classes, (4,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(trunk(images), labels).backward()
        optimiser.step()
    trunk.eval()


def _export(model: torch.nn.Module, path: Path, folded: bool) -> None:
    """torch folds batch norm into the convolutions of what it exports for inference; here also without."""
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's age
        torch.onnx.export(
            model,
            (torch.rand(1, 3, SIZE, SIZE),),
            path,
            dynamo=False,
            training=mode,
            do_constant_folding=folded,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "N"}, "scores": {0: "N"}},
        )


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vehicles and signs on one trunk, and people, for which one batch norm went on; folded and not."""
    folder = tmp_path_factory.mktemp("foreign")
    trunk = _frozen_trunk()
    for name, classes, left in (("vehicles", 5, ""), ("signs", 10, ""), ("people", 5, MOVED)):
        _train_head(trunk, classes, left)
        for kind in ("folded", "unfolded"):
            (folder / kind).mkdir(exist_ok=True)
            _export(trunk, folder / kind / f"{name}.onnx", kind == "folded")
    return folder


def _run(path: Path, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


@pytest.mark.parametrize("kind", ["folded", "unfolded"])
def test_models_on_one_trunk_share_all_but_heads(kind: str, call: Command, foreign: Path, tmp_path: Path) -> None:
    models = [foreign / kind / f"{name}.onnx" for name in ("vehicles", "signs")]
    done = call("fuse", *models, "-o", tmp_path / "fused.onnx", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    layers = report["sharing"]["own"]["vehicles"]["layers"]
    assert report["divergences"] == [
        {
            "model": "signs",
            "against": "vehicles",
            "shared": layers - 1,
            "layers": layers,
            "layer": "classifier",
            "reason": "weight differs in shape or type: float32 [5, 1280] in vehicles, float32 [10, 1280] in signs",
        }
    ]
    assert report["sharing"]["fused"]["layers"] == layers + 1
    assert report["verified"]["difference"] == 0.0
    assert report["fused_bytes"] < 1.03 * report["bytes"]["signs"]
    assert report["sharing"]["gain"] > 1.9
    images = np.random.default_rng(1).random((3, 3, SIZE, SIZE), dtype=np.float32)
    together = _run(tmp_path / "fused.onnx", images)
    assert list(together) == ["vehicles/scores", "signs/scores"]
    for model in models:
        np.testing.assert_array_equal(together[f"{model.stem}/scores"], _run(model, images)["scores"])


@pytest.mark.parametrize(
    ("kind", "layer", "reason"),
    [
        ("unfolded", MOVED, "batch-norm statistics differ although weights are equal: was batch norm left in training"),
        ("folded", "features.12.conv.1.0", "weight differs by a factor per channel"),
    ],
)
def test_a_batch_norm_that_was_left_in_training_mode_is_found(
    kind: str, layer: str, reason: str, call: Command, foreign: Path, tmp_path: Path
) -> None:
    models = [foreign / kind / f"{name}.onnx" for name in ("vehicles", "people")]
    done = call("fuse", *models, "-o", tmp_path / "fused.onnx")
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[1]
    assert told.startswith(f"  first differing layer: {layer}: {reason}")
    assert "was batch norm left in training mode?" in told


def test_three_models_become_a_tree(call: Command, foreign: Path, tmp_path: Path) -> None:
    models = [foreign / "folded" / f"{name}.onnx" for name in ("people", "vehicles", "signs")]
    done = call("fuse", *models, "-o", tmp_path / "fused.onnx", "--json")
    report = json.loads(done.stdout)
    assert [(found["model"], found["against"]) for found in report["divergences"]] == [
        ("vehicles", "people"),
        ("signs", "vehicles"),
    ]
    shared = {name: amount["layers"] for name, amount in report["sharing"]["shared"].items()}
    assert shared["vehicles"] == shared["signs"] > shared["people"] > 0
    assert report["verified"]["difference"] < 1e-5


@pytest.mark.slow
def test_the_exporter_of_today_and_real_images(call: Command, finished: Path, tmp_path: Path) -> None:
    trunk = _frozen_trunk()
    for name, classes in (("vehicles", 3), ("signs", 4)):
        _train_head(trunk, classes)
        program = torch.onnx.export(
            trunk,
            (torch.rand(2, 3, SIZE, SIZE),),
            input_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
        program.save(tmp_path / f"{name}.onnx", external_data=False)
    models = [tmp_path / "vehicles.onnx", tmp_path / "signs.onnx"]
    done = call(
        "fuse", *models, "-o", tmp_path / "fused.onnx", "--preprocessing", "unit", "--images", finished / "run" / "data"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("  first differing layer: classifier: weight differs in shape")
    assert "largest difference to the separate models: 0 (on 8 random images and 64 real ones)" in done.stdout


# --- what is printed -------------------------------------------------------------------------------------------------


def _write(
    path: Path, mean: float = 0.5, tuned: float = 0.0, classes: int = 2, seed: int = 1, size: int = SIZE
) -> Path:
    """Normalisation, two convolutions and a head; ``tuned`` moves the second convolution's weight."""

    def weight(seed: int, *shape: int) -> NDArray[np.float32]:
        return np.random.default_rng(seed).normal(0.0, 0.3, shape).astype(np.float32)

    values = {
        "mean": np.array([mean], np.float32),
        "layer1.weight": weight(10, 32, 3, 3, 3),
        "layer2.weight": weight(11, 64, 32, 3, 3) + np.float32(tuned),
        "head.weight": weight(seed, 64, classes),
    }
    nodes = [
        helper.make_node("Sub", ["images", "mean"], ["centred"], name="normalise"),
        helper.make_node("Conv", ["centred", "layer1.weight"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "layer2.weight"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head.weight"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_the_report_says_where_sharing_ends_why_and_what_it_is_worth(call: Command, tmp_path: Path) -> None:
    models = [
        _write(tmp_path / "vehicles.onnx"),
        _write(tmp_path / "signs.onnx", seed=2),
        _write(tmp_path / "people.onnx", tuned=0.25, seed=3),
    ]
    done = call("fuse", *models, "-o", tmp_path / "fused.onnx")
    assert done.stderr == "verifying that nothing changed\n"
    assert (
        done.stdout
        == f"""\
signs against vehicles: 7 of 8 layers shared
  first differing layer: head: weight differs by up to 0.97
people against vehicles: 3 of 8 layers shared
  first differing layer: layer2: weight differs by up to 0.25

        layers  shared   parameters  shared        FLOPs  shared      file
vehicles     8  87.5 %       19,425  99.3 %  30.5 MFLOPs  99.9 % 0.0781 MB
signs        8  87.5 %       19,425  99.3 %  30.5 MFLOPs  99.9 % 0.0781 MB
people       8  37.5 %       19,425   4.4 %  30.5 MFLOPs   5.1 % 0.0781 MB
together    14               38,113          59.4 MFLOPs          0.154 MB

predicted gain: 1.54 times (an estimate; measure it with edgetl profile)
largest difference to the separate models: 0 (on 8 random images)
{tmp_path}/fused.onnx
"""
    )


def test_the_commands_of_the_guide_run_one_after_another(
    call: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("vehicles", "signs", "people")):
        _write(Path(f"{name}.onnx"), seed=seed)
    guide = (Path(__file__).parents[2] / "docs" / "fuse.md").read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```console\n(.*?)```", guide, flags=re.S) for line in block.splitlines()]
    assert len(commands) == 3
    for line in commands:
        done = call(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    assert len(onnx.load("fused.int8.onnx").graph.output) == 2


def test_names_from_a_file_cannot_steer_the_terminal(call: Command, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        model = onnx.load(_write(tmp_path / f"{name}.onnx", seed=seed))
        model.graph.node[-1].name = "\x1b[2Jhead"
        model.graph.node[-1].input[1] = model.graph.initializer[-1].name = "weights"
        onnx.save(model, tmp_path / f"{name}.onnx")
    done = call("fuse", tmp_path / "a.onnx", tmp_path / "b.onnx", "-o", tmp_path / "fused.onnx")
    assert "first differing layer: ?[2Jhead: weight differs" in done.stdout


def test_models_of_one_name_need_others(call: Command, fault: Fault, tmp_path: Path) -> None:
    models = []
    for folder, seed in (("x", 1), ("y", 2)):
        (tmp_path / folder).mkdir()
        models.append(_write(tmp_path / folder / "best.onnx", seed=seed))
    output = tmp_path / "fused.onnx"
    assert "two models are called 'best'" in fault(call("fuse", *models, "-o", output))
    assert call("fuse", *models, "-o", output, "--names", "vehicles, signs").returncode == 0
    assert [value.name for value in onnx.load(output).graph.output] == ["vehicles/scores", "signs/scores"]
    assert "cannot be called 'a/b'" in fault(call("fuse", *models, "-o", output, "--names", "a/b,c"))
    assert "cannot be called ''" in fault(call("fuse", *models, "-o", output, "--names", "a,"))


def test_wrong_usage_is_told_as_such(call: Command, tmp_path: Path, fault: Callable[[Done], str]) -> None:
    model, output = _write(tmp_path / "m.onnx"), tmp_path / "fused.onnx"
    assert call("fuse", model, "-o", output).returncode == 2
    assert "3 names for 2 models" in fault(call("fuse", model, model, "-o", output, "--names", "a,b,c"))
    assert not output.exists()


# --- what is refused, and leaves nothing behind ----------------------------------------------------------------------


@pytest.fixture
def refused(call: Command, fault: Fault, tmp_path: Path) -> Callable[..., str]:
    """The line that two models are refused with; what was there stays."""

    def refused(one: Path, other: Path, *options: object) -> str:
        output = tmp_path / "fused.onnx"
        output.write_bytes(b"what was there")
        before = sorted(tmp_path.iterdir())
        done = call("fuse", one, other, "-o", output, *options)
        done.stderr = done.stderr.replace("verifying that nothing changed\n", "")
        line = fault(done)
        assert output.read_bytes() == b"what was there"
        assert sorted(tmp_path.iterdir()) == before
        return line

    return refused


def test_another_normalisation_is_refused_with_both(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused(_write(tmp_path / "a.onnx"), _write(tmp_path / "b.onnx", mean=0.25)) == (
        "a has no layer in common with the others, so nothing would be gained; against b, at normalise: constant "
        "differs: 0.25 in b, 0.5 in a"
    )


def test_another_image_size_is_refused_with_both(refused: Callable[..., str], tmp_path: Path) -> None:
    line = refused(_write(tmp_path / "a.onnx"), _write(tmp_path / "b.onnx", size=48))
    assert "FLOAT [?, 3, 32, 32] in a, FLOAT [?, 3, 48, 48] in b" in line


def test_two_preparations_of_images_are_refused(refused: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    model = onnx.load(finished / "run" / "graphs" / "shared.fp32.onnx")
    onnx.save(model, tmp_path / "a.onnx")
    notes = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, notes | {"edgetl.input": notes["edgetl.input"].replace("bilinear", "bicubic")})
    onnx.save(model, tmp_path / "b.onnx")
    line = refused(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert line.startswith("images are prepared differently: ")
    assert "bilinear" in line and "bicubic" in line


def test_a_result_that_cannot_be_verified_is_not_written(refused: Callable[..., str], tmp_path: Path) -> None:
    for name in "ab":
        model = onnx.load(_write(tmp_path / f"{name}.onnx"))
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([np.nan], np.float32), "mean"))
        onnx.save(model, tmp_path / f"{name}.onnx")
    line = refused(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "output a/scores would be up to inf away from what its model computes" in line


def test_bad_files_and_folders_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    model = _write(tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    assert "none.onnx does not exist" in refused(model, tmp_path / "none.onnx")
    assert "bad.onnx is not an ONNX model" in refused(model, tmp_path / "bad.onnx")
    assert "holds no readable image" in refused(
        model, model, "--names", "a,b", "--preprocessing", "unit", "--images", tmp_path / "empty"
    )
    assert "is one of the models to fuse" in refused(model, tmp_path / "fused.onnx", "--names", "a,b")


# --- edgetl's own graphs ---------------------------------------------------------------------------------------------


def test_deployments_share_their_trunk_and_keep_their_labels(call: Command, finished: Path, tmp_path: Path) -> None:
    models = [finished / "run" / "graphs" / f"{name}.fp32.onnx" for name in ("combined", "shared")]
    photos = finished / "run" / "data"
    done = call(
        "fuse",
        *models,
        "-o",
        tmp_path / "f.onnx",
        "--names",
        "all,apart",
        "--preprocessing",
        "unit",
        "--images",
        photos,
    )
    assert done.returncode == 0, done.stderr
    assert "largest difference to the separate models: 0 (on 8 random images and 64 real ones)" in done.stdout
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "f.onnx").metadata_props}
    labels = json.loads(notes["edgetl.labels"])
    assert set(labels) == {"all/combined", "apart/round", "apart/ángulo"}
    assert labels["apart/ángulo"] == ["1", "4", "7", "other"]
    assert json.loads(notes["edgetl.input"])["width"] == 16


@pytest.fixture
def calibrated_apart(call: Command, photos: Path, finished: Path, tmp_path: Path) -> Callable[[str], list[Path]]:
    """Two deployments in INT8, each calibrated on images of its own, by a recipe that leaves weights as they are."""

    def calibrated_apart(target: str) -> list[Path]:
        paths = []
        for name, label in (("combined", "0"), ("shared", "1")):
            graph = finished / "run" / "graphs" / f"{name}.fp32.onnx"
            paths.append(tmp_path / f"{name}.onnx")
            options = ["--calibration-images", photos / label, "--recipe", "mse", "--target", target, "-o", paths[-1]]
            done = call("prepare", graph, "--preprocessing", "unit", "--precision", "int8", *options)
            assert done.returncode == 0, done.stderr
        return paths

    return calibrated_apart


def test_scales_that_differ_are_told_and_united_on_request(
    calibrated_apart: Callable[[str], list[Path]], call: Command, tmp_path: Path
) -> None:
    models = calibrated_apart("tensorrt")
    output = tmp_path / "fused.onnx"
    united = call("fuse", *models, "-o", output, "--recalibrate")
    assert united.returncode == 0, united.stderr
    assert "; the ranges were united:" in united.stdout
    assert "largest difference that recalibration makes: 0." in united.stdout
    report = json.loads(call("fuse", *models, "-o", output, "--recalibrate", "--json").stdout)
    assert report["conflicts"] and report["recalibration_difference"] > 0.0
    assert report["divergences"][0]["layer"] is None or "weight" in report["divergences"][0]["reason"]


def test_scales_that_are_bound_to_biases_are_refused(
    calibrated_apart: Callable[[str], list[Path]], call: Command, fault: Fault, tmp_path: Path
) -> None:
    models = calibrated_apart("onnxruntime")
    line = fault(call("fuse", *models, "-o", tmp_path / "fused.onnx", "--recalibrate"))
    assert "is stored in steps of a scale that would change" in line
