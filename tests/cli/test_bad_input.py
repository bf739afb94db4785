"""What a user can get wrong, or find broken: one clear line, exit code 1, and nothing half-written."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgetl.artifacts.files import sha256_file, write_json

Done = subprocess.CompletedProcess[str]
Command = Callable[..., Done]
Refused = Callable[..., str]
WriteStudy = Callable[..., Path]
Snapshot = Callable[[Path], dict[str, str]]

IMAGE_FOLDER = {"format": "image-folder", "root": "photos", "val": 0.25, "test": 0.25}
OWN_TEST = {"format": "image-folder", "root": "photos", "train": "train", "val": 0.25, "test": "test"}


@pytest.fixture
def refused(call: Command, fault: Callable[[Done], str], snapshot: Snapshot) -> Refused:
    """The error line of a command that may change nothing in the folder of its output."""

    def refused(*arguments: object) -> str:
        output = Path(str(arguments[list(map(str, arguments)).index("-o") + 1]))
        before = snapshot(output)
        line = fault(call(*arguments))
        assert snapshot(output) == before
        return line

    return refused


@pytest.fixture
def refused_at(call: Command, fault: Callable[[Done], str], snapshot: Snapshot) -> Refused:
    """The error line of a command that gets as far as a stage, which then has no record and leaves nothing partial."""

    def refused_at(stage: str, *arguments: object) -> str:
        run = Path(str(arguments[-1]))
        line = fault(call(*arguments))
        assert not (run / "stages" / f"{stage}.json").exists()
        assert not [path for path in snapshot(run) if path.endswith(".partial")]
        return line

    return refused_at


@pytest.fixture
def split_photos(photos: Path) -> Path:
    """The image folder with a train and a test part: 16 and 8 images of each label."""
    for label in list(photos.iterdir()):
        for number, image in enumerate(sorted(label.iterdir())):
            target = photos / ("test" if number < 8 else "train") / label.name
            target.mkdir(parents=True, exist_ok=True)
            image.rename(target / image.name)
        label.rmdir()
    return photos


def _cut_short(path: Path, keep: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


# The study file


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds NoneType, expected a mapping of keys"),
        (b"\x00\x01\x89PNG\r\n\xff\xfe" * 50, "cannot be read"),
        (b"\x00\x01\x02\x03" * 50, "is not valid YAML"),
        (b"name: [", "is not valid YAML"),
        (b"- a list", "holds "),
    ],
    ids=["empty", "binary", "control characters", "cut short", "a list"],
)
def test_a_file_that_is_no_study(content: bytes, said: str, refused: Refused, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_bytes(content)
    assert said in refused("run", study, "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_study_file_and_a_folder_in_its_place(refused: Refused, tmp_path: Path) -> None:
    assert refused("run", tmp_path / "no.yaml", "-o", tmp_path / "run") == f"{tmp_path}/no.yaml does not exist"
    assert "Is a directory" in refused("run", tmp_path, "-o", tmp_path / "run")


def test_all_faults_come_before_the_error_line(call: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study(tmp_path, precisions=["fp32", "int4"], seeds=1)
    done = call("run", study, "-o", tmp_path / "run")
    assert done.returncode == 1
    *faults, last = done.stderr.splitlines()
    assert any("'int4'" in fault for fault in faults)
    assert any("seeds is not a known key (did you mean seed?)" in fault for fault in faults)
    assert last == f"error: {study} has 2 faults, listed above"


def test_a_label_in_two_groups(refused: Refused, write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study(tmp_path, groups={"round": [0, 6], "straight": [1, 6]})
    line = refused("run", study, "-o", tmp_path / "run")
    assert "label '6' is in group 'round' and again in group 'straight'" in line


# The data


def test_an_unknown_label_is_named_with_its_near_miss(
    refused: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    (photos / "4").rename(photos / "four")
    study = write_study(tmp_path, data=IMAGE_FOLDER, groups={"round": [0, 6], "straight": [1, "fuor"]})
    line = refused("run", study, "-o", tmp_path / "run")
    assert line.startswith("groups name 'fuor' (did you mean four?), which is not in the data; the data has: 0, 1, 2")


def test_a_class_without_images(refused: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path) -> None:
    for image in (photos / "4").iterdir():
        image.unlink()
    line = refused("run", write_study(tmp_path, data=IMAGE_FOLDER), "-o", tmp_path / "run")
    assert "label '4' has no image" in line and "take the label out of groups" in line


def test_classes_with_one_image_each(refused: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path) -> None:
    for label in photos.iterdir():
        for image in sorted(label.iterdir())[1:]:
            image.unlink()
    line = refused("run", write_study(tmp_path, data=IMAGE_FOLDER), "-o", tmp_path / "run")
    assert "too few images in train: '0' 1, '6' 1" in line and "every label needs 3" in line


def test_a_missing_folder_is_named_with_its_near_miss(
    refused: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    study = write_study(tmp_path, data=IMAGE_FOLDER | {"root": "fotos"})
    line = refused("run", study, "-o", tmp_path / "run")
    assert line.startswith(f"data.root: there is no folder {tmp_path / 'fotos'} (did you mean photos?)")


def test_a_test_set_that_overlaps_train_is_refused_with_counts(
    refused: Refused, write_study: WriteStudy, split_photos: Path, tmp_path: Path
) -> None:
    _share_images(split_photos, 3)
    line = refused("run", write_study(tmp_path, data=OWN_TEST), "-o", tmp_path / "run")
    assert line.startswith("3 of 51 test images are also in train (the first: test/0/shared")
    assert "set data.split_duplicates: drop to leave them out of train" in line


def test_an_overlap_to_be_dropped_is_dropped_and_told(
    call: Command, write_study: WriteStudy, split_photos: Path, tmp_path: Path
) -> None:
    _share_images(split_photos, 3)
    study = write_study(tmp_path, data=OWN_TEST | {"split_duplicates": "drop"})
    done = call("finetune", study, "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "index: 3 of 51 test images are also in train" in done.stderr
    index = json.loads((tmp_path / "run" / "data" / "index.json").read_text())
    contents = {split: {sample["sha256"] for sample in index[split]} for split in ("train", "val", "test")}
    assert len(contents["test"]) == 51
    assert contents["test"].isdisjoint(contents["train"] | contents["val"])


def _share_images(photos: Path, count: int) -> None:
    for image in sorted((photos / "train" / "0").iterdir())[:count]:
        shutil.copy(image, photos / "test" / "0" / f"shared-{image.name}")


def test_too_many_broken_images_are_named_with_their_share(
    refused: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    broken = sorted((photos / "0").iterdir())[:6]
    for image in broken:
        _cut_short(image)
    line = refused("run", write_study(tmp_path, data=IMAGE_FOLDER), "-o", tmp_path / "run")
    assert line.startswith("6 of 144 images are broken, a share of 0.0417, more than data.max_broken_fraction 0.01")
    assert f"0/{broken[0].name} (truncated: a PNG" in line


def test_a_few_broken_images_are_named_left_out_and_recorded(
    call: Command, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    first, second = sorted((photos / "0").iterdir())[:2]
    _cut_short(first)
    _spoil_pixels(second)
    study = write_study(tmp_path, data=IMAGE_FOLDER | {"max_broken_fraction": 0.05}, precisions=["fp32"])
    done = call("run", study, "-o", tmp_path / "run", "--threads", 1, "--seconds", 0.1)
    assert done.returncode == 0, done.stderr
    assert f"index: left out 0/{first.name}: truncated" in done.stderr
    assert f": left out 0/{second.name}: damaged" in done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {file["path"] for file in results["data"]["broken"]} == {f"0/{first.name}", f"0/{second.name}"}


def test_too_many_images_that_only_decoding_shows_to_be_broken(
    refused_at: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    for image in sorted((photos / "0").iterdir())[:16]:
        _spoil_pixels(image)
    line = refused_at("finetune", "run", write_study(tmp_path, data=IMAGE_FOLDER), "-o", tmp_path / "run")
    assert "images are broken, a share of 0." in line and "(damaged: " in line


def _spoil_pixels(png: Path) -> None:
    """Header and end stay as they are; the compressed pixels between them do not."""
    content = bytearray(png.read_bytes())
    begin = content.index(b"IDAT") + 4
    content[begin : begin + 40] = b"\xff" * 40
    png.write_bytes(content)


@pytest.mark.parametrize("fate", ["changed", "deleted"])
def test_a_test_image_that_changed_after_indexing(
    fate: str, call: Command, refused_at: Refused, write_study: WriteStudy, split_photos: Path, tmp_path: Path
) -> None:
    study, run = write_study(tmp_path, data=OWN_TEST, precisions=["fp32"]), tmp_path / "run"
    for command in ("finetune", "export", "build-engine"):
        assert call(command, study, "-o", run).returncode == 0
    image = next((split_photos / "test" / "0").iterdir())
    if fate == "changed":
        shutil.copy(next((split_photos / "test" / "1").iterdir()), image)
    else:
        image.unlink()
    line = refused_at("evaluate", "evaluate", study, "-o", run)
    assert str(image) in line and line.endswith("run again from edgetl finetune on, to index the data anew")
    if fate == "deleted":
        for command in ("finetune", "export", "build-engine", "evaluate"):  # what the line says
            done = call(command, study, "-o", run)
            assert done.returncode == 0, done.stderr


def test_a_changed_generated_image_is_made_anew(call: Command, fault: Callable[[Done], str], copied: Path) -> None:
    run = copied / "run"
    image = run / json.loads((run / "data" / "index.json").read_text())["test"][0]["path"]
    content = image.read_bytes()
    image.write_bytes(b"")
    said = fault(call("evaluate", copied / "study.yaml", "-o", run))
    assert said == f"{image} is not the file that the index stage wrote; run edgetl finetune again"
    assert call("finetune", copied / "study.yaml", "-o", run).returncode == 0
    assert image.read_bytes() == content


# The backbone


@pytest.fixture(scope="module")
def foreign_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real state dict of another architecture."""
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_file(squeezenet1_1(weights=None).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cut.safetensors", "are not a whole safetensors file"),
        ("text.safetensors", "are not a whole safetensors file"),
        ("text.pth", "cannot be read as a torch checkpoint of plain tensors"),
        ("folder.safetensors", "do not exist"),
        ("none.safetensors", "do not exist"),
    ],
)
def test_weights_that_cannot_be_read(
    name: str, said: str, refused_at: Refused, write_study: WriteStudy, foreign_weights: Path, tmp_path: Path
) -> None:
    shutil.copy(foreign_weights, tmp_path / "cut.safetensors")
    _cut_short(tmp_path / "cut.safetensors")
    for text in ("text.safetensors", "text.pth"):
        (tmp_path / text).write_text("these are no weights\n")
    (tmp_path / "folder.safetensors").mkdir()
    study = write_study(tmp_path, backbone={"name": "edgetl/nano", "weights": name, "image_size": 16})
    line = refused_at("finetune", "finetune", study, "-o", tmp_path / "run")
    assert line.startswith(f"weights {tmp_path / name} ") and said in line


def test_weights_of_another_architecture(
    refused_at: Refused, write_study: WriteStudy, foreign_weights: Path, tmp_path: Path
) -> None:
    backbone = {"name": "torchvision/resnet18", "weights": str(foreign_weights), "image_size": 32}
    line = refused_at("finetune", "finetune", write_study(tmp_path, backbone=backbone), "-o", tmp_path / "run")
    assert line.startswith(f"weights {foreign_weights} do not fit torchvision/resnet18, which has ")
    assert " missing (conv1.weight, bn1.weight, " in line
    assert " unexpected (" in line and "features.0.bias" in line
    assert line.endswith("give the weights of this architecture, or name the backbone that they belong to")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision/resnet81", "(did you mean resnet18"),
        ("timm/resnet181", "is unknown to the installed timm (did you mean "),
        ("timm/ .-", "is unknown to the installed timm"),
    ],
)
def test_an_unknown_backbone_is_named_with_its_near_miss(
    name: str, said: str, refused_at: Refused, write_study: WriteStudy, tmp_path: Path
) -> None:
    study = write_study(tmp_path, backbone={"name": name, "weights": None, "image_size": 32})
    line = refused_at("finetune", "finetune", study, "-o", tmp_path / "run")
    assert line.startswith(f"backbone {name} is unknown to the installed ") and said in line


@pytest.mark.parametrize("name", ["timm/resnet10t.c3_in1k", "torchvision/squeezenet1_1"])
def test_default_weights_without_a_network(
    name: str, edgetl: Command, fault: Callable[[Done], str], write_study: WriteStudy, tmp_path: Path
) -> None:
    nowhere = "http://127.0.0.1:9"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "torch")}
    offline |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), nowhere)
    study = write_study(tmp_path, backbone={"name": name, "image_size": 32})
    line = fault(edgetl("finetune", study, "-o", tmp_path / "run", env=offline))
    assert line.startswith(f"the default weights of {name} could not be fetched (")
    assert "give backbone.weights the file, or null for random weights" in line


# Plain ONNX files


@pytest.mark.parametrize(
    "arguments",
    [
        ["build-engine", "{graph}", "-o", "{out}/engine.onnx"],
        ["build-engine", "{graph}", "-o", "{out}/engine", "--runtime", "tensorrt-rtx"],
        ["prepare", "{graph}", "--precision", "fp16", "-o", "{out}/prepared.onnx"],
        ["profile", "{graph}", "--seconds", "0.1"],
    ],
    ids=["build-engine onnxruntime", "build-engine tensorrt-rtx", "prepare", "profile"],
)
@pytest.mark.parametrize("content", ["truncated", "empty", "text", "missing"])
def test_a_file_that_is_no_onnx_model(
    arguments: list[str], content: str, call: Command, fault: Callable[[Done], str], finished: Path, tmp_path: Path
) -> None:
    graph, out = tmp_path / "m.onnx", tmp_path / "out"
    out.mkdir()
    if content == "truncated":
        shutil.copy(finished / "run" / "graphs" / "combined.fp32.onnx", graph)
        _cut_short(graph)
    elif content != "missing":
        graph.write_text("no model" if content == "text" else "")
    line = fault(call(*(argument.format(graph=graph, out=out) for argument in arguments)))
    assert line.startswith(str(graph))
    assert list(out.iterdir()) == []


def test_int8_without_images_to_calibrate_on(
    call: Command, fault: Callable[[Done], str], finished: Path, tmp_path: Path
) -> None:
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    (tmp_path / "empty").mkdir()
    int8 = ("prepare", graph, "--precision", "int8", "-o", tmp_path / "int8.onnx")
    assert "give --calibration-images DIR" in fault(call(*int8))
    assert "is not a folder" in fault(call(*int8, "--calibration-images", graph))
    assert "holds no readable image" in fault(call(*int8, "--calibration-images", tmp_path / "empty"))
    assert not (tmp_path / "int8.onnx").exists()


# The run directory


@pytest.mark.parametrize(
    ("file", "command", "again"),
    [
        ("bundle/trunk.onnx", "export", "finetune"),
        ("bundle/heads.safetensors", "export", "finetune"),
        ("bundle/bundle.json", "export", "finetune"),
        ("graphs/shared.fp32.onnx", "build-engine", "export"),
        ("engines/onnxruntime/shared.fp32.onnx", "evaluate", "build-engine"),
        ("measurements/accuracy.json", "report", "evaluate"),
        ("data/index.json", "evaluate", "finetune"),
    ],
)
def test_a_truncated_file_in_the_run_directory(
    file: str, command: str, again: str, call: Command, refused: Refused, copied: Path
) -> None:
    study, run = copied / "study.yaml", copied / "run"
    _cut_short(run / file)
    line = refused(command, study, "-o", run)
    assert line.startswith(f"{run / file} is not the file that the ") and line.endswith(f"; run edgetl {again} again")
    assert call(again, study, "-o", run).returncode == 0  # what the line says
    assert call(command, study, "-o", run).returncode == 0


def test_a_damaged_stage_record(call: Command, refused: Refused, copied: Path) -> None:
    record = copied / "run" / "stages" / "export.json"
    _cut_short(record)
    line = refused("build-engine", copied / "study.yaml", "-o", copied / "run")
    assert line == f"{copied / 'run'} has no finished export stage; run edgetl export first"
    assert call("export", copied / "study.yaml", "-o", copied / "run").returncode == 0  # what the line says


def test_evaluate_before_build_engine(refused: Refused, call: Command, copied: Path) -> None:
    (copied / "run" / "stages" / "build-engine.json").unlink()
    line = refused("evaluate", copied / "study.yaml", "-o", copied / "run")
    assert line == f"{copied / 'run'} has no finished build-engine stage; run edgetl build-engine first"


def test_a_study_that_was_changed_after_training(refused: Refused, write_study: WriteStudy, copied: Path) -> None:
    study = write_study(copied, backbone={"name": "edgetl/nano", "image_size": 32})
    line = refused("evaluate", study, "-o", copied / "run")
    assert "the finetune stage" in line and "was made with another backbone than the study file has now" in line
    assert line.endswith("; run edgetl finetune again")


def test_an_engine_of_another_runtime_version(refused_at: Refused, copied: Path) -> None:
    """As a run directory copied from another machine: record and manifests agree, this machine does not."""
    run = copied / "run"
    record_path = run / "stages" / "build-engine.json"
    record = json.loads(record_path.read_text())
    record["inputs"]["onnxruntime"] = "1.2.3"
    for name in [name for name in record["outputs"] if name.endswith(".json")]:
        manifest = json.loads((run / name).read_text())
        manifest["target"]["onnxruntime"] = "1.2.3"
        record["outputs"][name] = _write_json(run / name, manifest)
    _write_json(record_path, record)
    line = refused_at("evaluate", "evaluate", copied / "study.yaml", "-o", run)
    assert "combined.fp32.onnx was built for onnxruntime 1.2.3, this machine has onnxruntime " in line
    assert line.endswith("; run edgetl build-engine here")


def _write_json(path: Path, content: dict[str, Any]) -> str:
    write_json(path, content)
    return sha256_file(path)


def test_two_runs_in_one_directory(start: Callable[..., subprocess.Popen[str]], refused: Refused, copied: Path) -> None:
    study, run = copied / "study.yaml", copied / "run"
    (run / "stages" / "profile.json").unlink()
    first = start("profile", study, "-o", run, "--seconds", 60)
    # The lock names its holder. Trying to take it here could shut the first process out.
    while (run / ".lock").read_text().splitlines()[0] != f"edgetl {first.pid}":
        assert first.poll() is None
        time.sleep(0.01)
    line = refused("run", study, "-o", run)
    assert line == f"another edgetl (process {first.pid}) is at work in {run}; wait for it or choose another -o"
    assert first.poll() is None


def test_an_output_that_is_a_file_or_cannot_be_made(
    call: Command, fault: Callable[[Done], str], write_study: WriteStudy, finished: Path, tmp_path: Path
) -> None:
    study, file = write_study(tmp_path), tmp_path / "file"
    file.write_text("mine")
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    for output in (file, file / "below", Path("/proc/edgetl")):
        line = fault(call("run", study, "-o", output))
        assert line.startswith(f"cannot write {output}: ") and "choose another directory" in line
    for output in (file / "m.onnx", Path("/proc/edgetl.onnx"), tmp_path):
        line = fault(call("prepare", graph, "--precision", "fp16", "-o", output))
        assert line.startswith(f"cannot write {output}: ")
        line = fault(call("build-engine", graph, "-o", output))
        assert line.startswith(f"cannot write {output}: ")
    assert file.read_text() == "mine"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kilobytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"this machine does not let the test mount a small disk: {done.stderr.strip()}")
        return folder

    try:
        yield mount
    finally:
        subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_disk_too_small_for_an_engine_is_not_the_graphs_fault(
    tiny_disk: Callable[[int], Path], call: Command, fault: Callable[[Done], str], finished: Path
) -> None:
    disk = tiny_disk(300)
    graph = finished / "run" / "graphs" / "combined.fp32.onnx"
    for options in (["-o", disk / "engine.onnx"], ["-o", disk / "engine", "--runtime", "tensorrt-rtx"]):
        line = fault(call("build-engine", graph, *options))
        assert line.startswith(f"cannot write {options[1]}: ")
        assert list(disk.iterdir()) == []


def test_a_disk_that_is_too_small_for_the_features_is_found_out_beforehand(
    tiny_disk: Callable[[int], Path], refused_at: Refused, write_study: WriteStudy, photos: Path, tmp_path: Path
) -> None:
    disk = tiny_disk(64)
    line = refused_at("finetune", "finetune", write_study(tmp_path, data=IMAGE_FOLDER), "-o", disk)
    assert line.startswith(f"the feature cache needs 0 MB in {disk / 'cache' / 'features'}, 0 MB are free")


@pytest.mark.parametrize("kilobytes", [16, 200, 500, 1200])
def test_a_disk_that_fills_up_on_the_way(
    kilobytes: int,
    tiny_disk: Callable[[int], Path],
    call: Command,
    fault: Callable[[Done], str],
    write_study: WriteStudy,
    photos: Path,
    snapshot: Snapshot,
    tmp_path: Path,
) -> None:
    disk = tiny_disk(kilobytes)
    line = fault(call("run", write_study(tmp_path, data=IMAGE_FOLDER), "-o", disk, "--seconds", 0.1))
    assert "free space or choose another directory" in line
    assert not [path for path in snapshot(disk) if path.endswith(".partial")]


def test_random_bytes_in_any_file_of_the_run_directory_are_never_called_a_bug(call: Command, copied: Path) -> None:
    """Whatever file is damaged, `report` and `evaluate` end with 0 or with 1, never with a crash."""
    run, chance = copied / "run", random.Random(0)
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and "digits" not in path.parts]
    for path in chance.sample(files, 12):
        content = path.read_bytes()
        path.write_bytes(chance.randbytes(200))
        for command in ("evaluate", "report"):
            done = call(command, copied / "study.yaml", "-o", run)
            assert done.returncode in {0, 1}, done.stderr
        path.write_bytes(content)


@pytest.mark.parametrize("command", ["run", "finetune", "build-engine", "report"])
def test_a_home_given_as_run_directory_is_refused_and_stays_as_it_is(
    command: str, call: Command, fault: Callable[[Done], str], write_study: WriteStudy, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for name in (".rsync.partial/big.iso", "Downloads/.x.partial", "results.json", "report.html", "data/index.json"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    before = {path: path.read_text() for path in home.rglob("*") if path.is_file()}
    line = fault(call(command, write_study(tmp_path), "-o", home))
    assert line == (
        f"{home} holds other things (Downloads) and is no run directory of edgetl; "
        "choose a new or an empty directory with -o"
    )
    assert {path: path.read_text() for path in home.rglob("*") if path.is_file()} == before
