"""A detection study by the commands: from drawn scenes to a report, what is done again, and a user's mistakes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the extra train is not installed")

from edgetl.artifacts.run_directory import RunDirectory
from edgetl.data.scenes.many_objects import render_boxed_scenes
from edgetl.graph.parity import run as run_graph

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Start = Callable[..., subprocess.Popen[str]]
Refused = Callable[..., str]
Snapshot = Callable[[Path], dict[str, str]]

STUDY: dict[str, Any] = {
    "name": "scenes",
    "task": "detect",
    "data": {"format": "synthetic", "scenes": 60, "val": 0.25, "test": 0.25},
    "groups": {"vehicles": ["car", "bus"], "signs": ["stop", "yield"]},
    "backbone": {"name": "edgetl/nano", "image_size": 96},
    "deployments": ["combined", "specialised", "shared", "cascade"],
    "precisions": ["fp32", "int8"],
    "detection": {"epochs": 12, "batch_size": 8, "learning_rate": 0.02, "pyramid_channels": 16},
}
SMALL = {
    "data": STUDY["data"] | {"scenes": 24},
    "deployments": ["combined"],
    "detection": STUDY["detection"] | {"epochs": 2},
}
STAGES = ["index", "finetune", "search", "export", "build-engine", "evaluate", "profile", "report"]
MEASURING = ("--threads", 1, "--seconds", 0.3)
TITLES = [f"{name} {precision}" for name in STUDY["deployments"] for precision in STUDY["precisions"]]

MATERIAL = Path(__file__).parents[2] / ".." / "shared" / "material"


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def detected(edgetl: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``study.yaml`` and its whole run directory ``run``. Not to be changed."""
    folder = tmp_path_factory.mktemp("detected")
    done = edgetl("run", write(folder), "-o", folder / "run", *MEASURING)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(detected: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(detected, tmp_path / "copied"))


@pytest.fixture
def refused(call: Command, fault: Callable[[Done], str], tmp_path: Path) -> Refused:
    """Run a study with changes, and the error line with which it is refused."""

    def refused(command: str = "run", **changes: Any) -> str:
        return fault(call(command, write(tmp_path, **changes), "-o", tmp_path / "run"))

    return refused


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "results.json").read_text())
    return found


def times(run: Path) -> dict[str, int]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(run).as_posix(): path.stat().st_mtime_ns for path in files}


def up_to_date(done: Done) -> list[str]:
    lines = done.stderr.splitlines()
    return [line.removesuffix(": up to date") for line in lines if line.endswith(": up to date")]


# What comes of a study


def test_every_deployment_is_judged_in_every_precision_by_label_and_by_group(detected: Path) -> None:
    results = results_of(detected)
    assert results["metric"] == "mAP@0.5"
    assert [f"{row['name']} {row['precision']}" for row in results["deployments"]] == TITLES
    for row in results["deployments"]:
        precision = row["average_precision"]
        assert set(precision["groups"]) == {"vehicles", "signs"}
        assert set(precision["labels"]) == {"car", "bus", "stop", "yield"}
        overall = precision["overall"]["ap50"]
        assert 0.0 <= overall["low"] <= overall["value"] <= overall["high"] <= 1.0
        assert precision["overall"]["ap"]["value"] <= overall["value"]
        assert row["accuracy"]["overall"] == overall
        assert row["latency_ms"]["p50"] > 0 and row["flops"] > 0 and row["engines"]
    combined = results["deployments"][0]["average_precision"]["overall"]["ap50"]
    assert combined["value"] > 0.1, "twelve epochs on thirty scenes teach it something"
    assert len(results["comparisons"]) == 2 * 28, "all pairs, in mAP and in latency"
    assert results["verdict"]["deployment"] in STUDY["deployments"]


def test_the_heads_are_told_of_with_what_they_were_before_training(detected: Path) -> None:
    heads = {head["name"]: head for head in results_of(detected)["training"]["detectors"]}
    assert list(heads) == ["combined", "vehicles", "signs", "vehicles@cascade", "signs@cascade"]
    for name, head in heads.items():
        assert head["val_ap50"] >= head["untrained_ap50"], name
        assert len(head["scales"][0]["anchors"]) == 5
    for group in ("vehicles", "signs"):
        assert heads[f"{group}@cascade"]["first_level"] == "combined"
        assert heads[f"{group}@cascade"]["untrained_ap50"] == heads[group]["val_ap50"]


def detections_of(folder: Path, title: str) -> list[NDArray[np.float32]]:
    with np.load(folder / "run" / "measurements" / "detections.npz") as archive:
        return np.split(archive[f"{title}/detections"], np.cumsum(archive[f"{title}/counts"])[:-1])


def test_shared_finds_exactly_what_specialised_finds(detected: Path) -> None:
    shared, specialised = (detections_of(detected, f"{name} fp32") for name in ("shared", "specialised"))
    assert sum(map(len, shared)) > 0
    for one, other in zip(shared, specialised, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = {row["name"]: row for row in results_of(detected)["deployments"] if row["precision"] == "fp32"}
    assert rows["shared"]["average_precision"] == rows["specialised"]["average_precision"]
    assert rows["shared"]["flops"] < rows["specialised"]["flops"]


@pytest.mark.parametrize("title", TITLES)
def test_boxes_lie_on_their_images_one_list_for_each(detected: Path, title: str) -> None:
    found = detections_of(detected, title)
    assert len(found) == results_of(detected)["data"]["images"]["test"]
    for one in found:
        assert len(one) <= 100
        assert ((one[:, :4] >= 0) & (one[:, :4] <= 160)).all(), "scenes are 160 pixels wide and high"
        assert (np.diff(one[:, 4]) <= 0).all()
        assert np.isin(one[:, 5], range(4)).all()


def test_a_cascade_says_when_its_second_level_runs(detected: Path) -> None:
    cascade = results_of(detected)["training"]["cascade"]
    assert 0.05 <= cascade["threshold"] <= 0.95
    assert set(cascade["fired"]) == {"vehicles", "signs"}, "one that never ran is told of too"
    assert all(0.0 <= share <= 1.0 for share in cascade["fired"].values())


def test_graphs_of_both_runtimes_find_the_same_boxes(detected: Path) -> None:
    """The one ends in ONNX's operator, the other in a loop: see the guide to deployments."""
    graphs = detected / "run" / "graphs"
    pixels = np.load(detected / "run" / "bundle" / "samples.npy").transpose(0, 3, 1, 2).astype(np.float32) / 255
    models = [onnx.load(graphs / f"shared.fp32.{target}.onnx") for target in ("onnxruntime", "tensorrt")]
    operator, loop = (run_graph(model, np.ascontiguousarray(pixels)) for model in models)
    assert set(operator) == {"vehicles", "signs"}
    for name, found in operator.items():
        np.testing.assert_allclose(found, loop[name], rtol=1e-5, atol=1e-4)
        assert (found[..., 4] > 0).any()


def test_the_report_is_one_file_that_speaks_of_map(detected: Path) -> None:
    page = (detected / "run" / "report.html").read_text(encoding="utf-8")
    assert "mAP@0.5" in page and "top-1" not in page


def test_its_engines_predict(call: Command, detected: Path) -> None:
    scene = next((detected / "run" / "data" / "road-scenes").glob("*.png"))
    graph = detected / "run" / "graphs" / "shared.fp32.onnxruntime.onnx"
    done = call("predict", graph, scene, "--json", "--score-threshold", 0.02)
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert {one["label"] for one in image["detections"]} <= {"car", "bus", "stop", "yield"}


# What is done again


def test_a_finished_study_is_not_done_again(call: Command, detected: Path) -> None:
    before = times(detected / "run")
    done = call("run", detected / "study.yaml", "-o", detected / "run", *MEASURING)
    assert done.returncode == 0, done.stderr
    assert up_to_date(done) == STAGES
    assert times(detected / "run") == before


def test_another_budget_needs_only_another_report(call: Command, copied: Path) -> None:
    before = times(copied / "run")
    done = call("run", write(copied, budget={"min_accuracy": 0.9}), "-o", copied / "run", *MEASURING)
    assert done.returncode == 0, done.stderr
    assert up_to_date(done) == STAGES[:-1]
    written = {name for name, _ in times(copied / "run").items() - before.items()}
    assert written == {"results.json", "report.html", "stages/report.json"}


def test_another_suppression_needs_no_training(call: Command, copied: Path) -> None:
    before = times(copied / "run")
    study = write(copied, detection=STUDY["detection"] | {"nms": {"iou_threshold": 0.7, "max_detections": 7}})
    done = [call(stage, study, "-o", copied / "run") for stage in ("finetune", "export", "build-engine", "evaluate")]
    assert all(one.returncode == 0 for one in done), done[-1].stderr
    assert [up_to_date(one) for one in done] == [STAGES[:3], [], [], []]
    written = {name for name, _ in times(copied / "run").items() - before.items()}
    assert not {name for name in written if name.startswith(("data/", "cache/", "bundle/"))}
    assert max(len(one) for one in detections_of(copied, "combined fp32")) == 7


def test_a_study_killed_in_training_ends_alike(start: Start, call: Command, snapshot: Snapshot, tmp_path: Path) -> None:
    killed, whole = write(tmp_path / "killed", **SMALL), write(tmp_path / "whole", **SMALL)
    run = killed.parent / "run"
    process = start("finetune", killed, "-o", run)
    while not list(run.glob("cache/features/*.json")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (run / "bundle" / "bundle.json").exists()
    for study in (killed, whole):
        done = call("finetune", study, "-o", study.parent / "run")
        assert done.returncode == 0, done.stderr
        assert up_to_date(done) == (["index"] if study is killed else [])
    for folder in ("bundle", "data"):
        assert snapshot(run / folder) == snapshot(whole.parent / "run" / folder)
    assert not list(run.rglob("*.partial"))


def test_other_heads_are_trained_on_the_maps_that_are_there(call: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("finetune", write(tmp_path, **SMALL), "-o", run).returncode == 0
    kept = {name: when for name, when in times(run).items() if name.startswith(("cache/", "data/"))}
    changed = SMALL | {"detection": SMALL["detection"] | {"loss": "ciou"}}
    done = call("finetune", write(tmp_path, **changed), "-o", run)
    assert done.returncode == 0, done.stderr
    assert {name: when for name, when in times(run).items() if name.startswith(("cache/", "data/"))} == kept


def test_the_last_layers_are_tuned_and_told_of_beside_the_frozen_ones(call: Command, tmp_path: Path) -> None:
    """With views, and with a disk that holds only some of the maps."""
    more = {"unfreeze": "30%", "finetune": {"epochs": 1}, "augmentation": {"views": 1, "mosaic": True}}
    detection = SMALL["detection"] | more | {"cache_gb": 0.0018}
    run = RunDirectory(tmp_path / "run")
    for command in ("finetune", "export", "build-engine", "evaluate"):
        done = call(command, write(tmp_path, **SMALL | {"detection": detection}), "-o", run.path)
        assert done.returncode == 0, done.stderr
        if command == "finetune":
            assert "detection.cache_gb 0.0018 holds no more, the rest is computed in every epoch" in done.stderr
    assert sum(path.stat().st_size for path in run.path.glob("cache/features/*.npy")) < 1.9e6
    heads = {head["name"]: head for head in json.loads((run.bundle / "bundle.json").read_text())["heads"]}
    frozen, tuned = heads.values()
    assert tuned["name"] == f"combined@{tuned['cut']}"
    assert tuned["frozen_ap50"] == frozen["val_ap50"] <= tuned["val_ap50"]
    measured = json.loads((run.measurements / "accuracy.json").read_text())["deployments"]
    assert {row["name"] for row in measured} == {"combined", tuned["name"]}


def scenes_on_disk(folder: Path, scenes: int) -> list[Path]:
    """Drawn scenes as a user would have them, in YOLO's format."""
    labels = [label for group in STUDY["groups"].values() for label in group]
    pictures, texts = folder / "images", folder / "labels"
    texts.mkdir(parents=True)
    for scene in render_boxed_scenes(pictures, labels, scenes, seed=7):
        corners = [(labels.index(mark.label), *(side / 160 for side in mark.corners)) for mark in scene.marks]
        lines = [f"{n} {(x + w) / 2} {(y + h) / 2} {w - x} {h - y}\n" for n, x, y, w, h in corners]
        (texts / scene.path).with_suffix(".txt").write_text("".join(lines))
    (folder / "x.names").write_text("\n".join(labels))
    return sorted(pictures.glob("*.png"))


def test_images_that_do_not_decode_are_left_out_of_every_split_and_told_of(call: Command, tmp_path: Path) -> None:
    broken = scenes_on_disk(tmp_path / "scenes", 48)[::6]
    for path in broken:  # the beginning and the end are whole: the index sees no more of them
        content = path.read_bytes()
        path.write_bytes(content[:3000] + bytes(len(content) - 3100) + content[-100:])
    data = {"format": "yolo", "root": "scenes", "train": "images", "names": "x.names", "max_broken_fraction": 0.3}
    more = {"augmentation": {"views": 2, "mosaic": True}, "cache_gb": 0.003}
    changes = SMALL | {"data": data | {"val": 0.3, "test": 0.3}, "detection": SMALL["detection"] | more}
    changes["deployments"] = ["combined", "cascade"]
    study, run = write(tmp_path, **changes), RunDirectory(tmp_path / "run")
    for command in ("finetune", "export", "build-engine", "evaluate"):
        done = call(command, study, "-o", run.path)
        assert done.returncode == 0, done.stderr
    bundle, accuracy = (
        json.loads(path.read_text()) for path in (run.bundle / "bundle.json", run.measurements / "accuracy.json")
    )
    told = [file["path"] for file in (*bundle["broken"], *accuracy["broken"])]
    assert sorted(told) == [f"images/{path.name}" for path in broken]
    assert accuracy["images"] == len(json.loads(run.index.read_text())["test"]) - len(accuracy["broken"])


@pytest.mark.material
def test_labels_that_the_pretrained_ending_knows_are_found_before_any_training(call: Command, tmp_path: Path) -> None:
    network, photographs = (MATERIAL / part for part in ("darknet/mobilenetv2-yolov3-nano-coco", "datasets/coco128"))
    if not network.is_dir():
        pytest.skip("the real networks do not lie beside the project")
    for name in ("MobileNetV2-YOLOv3-Nano-coco.cfg", "MobileNetV2-YOLOv3-Nano-coco.weights", "coco.names"):
        shutil.copy(network / name, tmp_path / name)
    for folder, kind in (("images", "jpg"), ("labels", "txt")):
        (tmp_path / "coco128" / folder).mkdir(parents=True)
        for path in sorted((photographs / folder / "train2017").glob(f"*.{kind}"))[:50]:
            shutil.copy(path, tmp_path / "coco128" / folder)
    shutil.copy(network / "coco.names", tmp_path / "coco128" / "coco.names")
    study = write(
        tmp_path,
        data={
            "format": "yolo",
            "root": "coco128",
            "train": "images",
            "names": "coco.names",
            "val": 0.4,
            "test": 0.1,
            "max_broken_fraction": 0.1,
        },
        groups={"people": ["person"]},
        backbone={
            "name": "darknet/MobileNetV2-YOLOv3-Nano-coco.cfg",
            "weights": "MobileNetV2-YOLOv3-Nano-coco.weights",
            "labels": "coco.names",
            "image_size": 256,
        },
        deployments=["combined"],
        detection={"epochs": 1},
    )
    done = call("finetune", study, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (head,) = json.loads((tmp_path / "run" / "bundle" / "bundle.json").read_text())["heads"]
    assert head["known"] == ["person"]
    assert head["untrained_ap50"] > 0.25
    assert len(head["scales"]) == 2


# A user's mistakes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deployments": ["combined", "branched"]}, "has deployment branched, which task detect has not; it has"),
        ({"deployments": ["one-vs-rest"]}, "has deployment one-vs-rest, which task detect has not"),
        ({"training": {"views": 2}}, "has training, which is for task classify; the section detection says"),
        ({"search": {"trees": 2}}, "has search, which is for task classify"),
        ({"data": {"format": "digits"}}, "has data.format digits, which task detect does not read; expected"),
        ({"data": {"format": "image-folder", "root": "photos"}}, "has data.format image-folder, which task detect"),
        ({"data": {"format": "yolo", "root": "r", "train": "t"}}, "format yolo needs names: the file with its class"),
        ({"backbone": {"name": "edgetl/nano", "cut": "features.3"}}, "detection.unfreeze tunes a trunk's end"),
        ({"task": "classify"}, "has detection, which is for task detect; leave it out, or say task: detect"),
        ({"groups": {"all": ["car", "bus"]}}, "need at least two groups"),
        ({"detection": {"epocs": 3}}, "detection.epocs is not a known key (did you mean epochs?)"),
        ({"detection": {"unfreeze": 20}}, "detection.unfreeze is 20, expected a fraction such as 20% or 0.2"),
        ({"backbone": {"name": "darknet/yolo.cfg"}}, "a Darknet cfg needs weights: its .weights file, or null"),
        ({"backbone": {"name": "edgetl/nano", "labels": "coco.names"}}, "labels is for a Darknet detector"),
    ],
)  # fmt: skip
def test_a_study_file_that_makes_no_sense(changes: dict[str, Any], said: str, refused: Refused, tmp_path: Path) -> None:
    assert said in refused(**changes)
    assert not (tmp_path / "run").exists()


FEW = {"format": "synthetic", "scenes": 24, "val": 0.25, "test": 0.25}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": {"a": ["car", "buss"], "b": ["stop"]}}, "groups name 'buss' (did you mean bus?)"),
        ({"backbone": {"name": "torchvision/resnet19"}}, "backbone torchvision/resnet19 is unknown"),
        (
            {"backbone": {"name": "torchvision/vit_b_16", "weights": None, "image_size": 224}},
            "torchvision/vit_b_16 has no maps that boxes could be read from at 224 x 224 pixels",
        ),
        (
            {"backbone": {"name": "torchvision/inception_v3", "weights": None, "image_size": 32}},
            "torchvision/inception_v3 cannot take images of 32 x 32",
        ),
        ({"detection": {"anchors": "keep"}}, "edgetl/nano has no anchors of its own to keep; say"),
        ({"backbone": {"name": "darknet/no.cfg", "weights": None}}, "no.cfg"),
        ({"backbone": {"name": "edgetl/nano", "weights": "no.safetensors"}}, "no.safetensors"),
        ({"calibration": "careful", "deployments": ["combined"]}, "calibration recipe 'careful' was not found"),
    ],
)  # fmt: skip
def test_what_is_not_there_or_does_not_fit(changes: dict[str, Any], said: str, refused: Refused) -> None:
    assert said in refused(**{"data": FEW} | changes)


def test_a_file_of_class_names_that_is_missing(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "scenes" / "images").mkdir(parents=True)
    data = {"format": "yolo", "root": "scenes", "train": "images", "names": "classes.names"}
    assert f"data.names: there is no file {tmp_path}/scenes/classes.names" in refused(data=data)


def darknet(folder: Path, filters: int = 8, classes: int = 3) -> None:
    """A small detector's files; the weights are those that the plain call implies."""
    from edgetl.train.darknet.cfg import read_cfg
    from edgetl.train.darknet.network import build
    from tests.darknet_weights import write_weights

    layer = "[convolutional]\nfilters={}\nsize={}\nstride={}\nactivation={}\n\n"
    text = "[net]\nwidth=64\nheight=64\nchannels=3\n\n" + layer.format(filters, 8, 8, "leaky")
    text += layer.format(3 * (5 + classes), 1, 1, "linear")
    text += f"[yolo]\nmask=0,1,2\nanchors=10,10, 20,20, 40,40\nclasses={classes}\nnum=3\n"
    (folder / "small.cfg").write_text(text)
    if not (folder / "small.weights").exists():
        write_weights(folder / "small.weights", build(read_cfg(folder / "small.cfg")))


DARKNET = {"name": "darknet/small.cfg", "weights": "small.weights"}


def test_darknet_weights_of_another_cfg(refused: Refused, tmp_path: Path) -> None:
    darknet(tmp_path)
    darknet(tmp_path, filters=12)
    line = refused(data=FEW, backbone=DARKNET)
    assert "small.weights" in line and "expected" in line


def test_a_list_of_names_of_another_network(refused: Refused, tmp_path: Path) -> None:
    darknet(tmp_path)
    (tmp_path / "coco.names").write_text("car\nbus\n")
    line = refused(data=FEW, backbone=DARKNET | {"labels": "coco.names"})
    assert line == (
        "backbone.labels coco.names has 2 names, darknet/small.cfg has 3 classes; give the names of that network"
    )


def test_too_few_boxes_to_fit_anchors_to(refused: Refused, tmp_path: Path) -> None:
    from PIL import Image

    darknet(tmp_path)
    for number in range(12):
        for folder in ("images", "labels"):
            (tmp_path / "scenes" / folder).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "scenes" / "images" / f"{number}.png")
        lines = "".join(f"{label} 0.5 0.5 0.25 0.25\n" for label in range(4))
        (tmp_path / "scenes" / "labels" / f"{number}.txt").write_text(lines)
    (tmp_path / "scenes" / "x.names").write_text("car\nbus\nstop\nyield\n")
    data = {"format": "yolo", "root": "scenes", "train": "images", "names": "x.names", "val": 0.25, "test": 0.25}
    line = refused(data=data, backbone=DARKNET, detection={"anchors": "fit"})
    assert line.startswith("3 anchors are to be fitted, and the training images have 1 boxes of different sides")


def test_a_stage_asks_for_the_one_before_it(refused: Refused) -> None:
    assert "run edgetl finetune first" in refused("export")


def test_a_study_changed_after_training_is_refused(call: Command, fault: Callable[[Done], str], copied: Path) -> None:
    changed = write(copied, detection=STUDY["detection"] | {"epochs": 13})
    line = fault(call("export", changed, "-o", copied / "run"))
    assert "was made with another training than the study file has now; run edgetl finetune again" in line
