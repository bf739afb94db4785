"""What the documentation says is run, or made by what it speaks of."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from edgetl.config import load_study
from edgetl.data.boxes.box_listing import AnnotatedImage
from edgetl.data.scenes.many_objects import render_boxed_scenes
from edgetl.data.video import video_writer
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.network import build
from tests.darknet_weights import write_weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def test_the_command_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == _script("generate_cli").reference(), (
        "run make docs"
    )


def test_the_python_reference_is_what_the_docstrings_say() -> None:
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == _script("generate_api").reference(), (
        "run make docs"
    )


@pytest.mark.slow
def test_the_examples_in_python_run_one_after_another(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    program = "\n".join(_blocks(ROOT / "docs" / "python.md", "python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shared" in done.stdout and done.stderr == ""


def test_the_figures_of_readme_and_guides_are_those_of_the_results() -> None:
    script = _script("generate_figures")
    for page in script.PAGES:
        assert page.read_text(encoding="utf-8") == script.with_figures(page), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_study_files_of_the_documentation_are_valid(page: Path, tmp_path: Path) -> None:
    for block in _blocks(page, "yaml"):
        (tmp_path / "study.yaml").write_text(block)
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.timeout(1500)  # two whole studies
def test_the_commands_of_the_readme_run_one_after_another(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    assert _run_commands(ROOT / "README.md", tmp_path) >= 10


def _run_commands(page: Path, folder: Path) -> int:
    """Run the commands of a page one after another, and give their number."""
    commands = [line for block in _blocks(page, "console") for line in block.splitlines()]
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "edgetl"
        done = subprocess.run(
            [sys.executable, "-m", "edgetl", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return len(commands)


_DETECTOR = """
[net]
width=320
height=320
channels=3
[convolutional]
filters=14
size=32
stride=32
activation=linear
[yolo]
anchors=40,40, 120,90
classes=2
num=2
"""

_CLASSIFIER = """
[net]
width=32
height=32
channels=3
[convolutional]
filters=2
size=3
activation=leaky
[avgpool]
[softmax]
"""


@pytest.mark.slow
def test_the_commands_of_the_guide_to_predict_run_one_after_another(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    pytest.importorskip("av", reason="the extra detect is not installed")
    for name, cfg, names in (
        ("yolo-fastest-1.1", _DETECTOR, "coco.names"),
        ("tiny", _CLASSIFIER, "imagenet.shortnames.list"),
    ):
        (tmp_path / f"{name}.cfg").write_text(cfg)
        (tmp_path / names).write_text("car\nbus\n")
        torch.manual_seed(0)
        write_weights(tmp_path / f"{name}.weights", build(read_cfg(tmp_path / f"{name}.cfg")))
    image = Image.effect_noise((160, 120), 80).convert("RGB")
    (tmp_path / "photos").mkdir()
    for file in ("dog.jpg", "photos/cat.png"):
        image.save(tmp_path / file)
    with video_writer(tmp_path / "street.mp4", Fraction(5)) as add:
        add(image, 0.0)
    assert _run_commands(ROOT / "docs" / "predict.md", tmp_path) >= 9
    drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert drawn == {"dog.jpg", "cat.png", "street.mp4"}


_TWO_SCALES = """
[net]
width=96
height=96
channels=3
[convolutional]
batch_normalize=1
filters=8
size=8
stride=8
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=21
size=1
activation=linear
[yolo]
mask=2,3,4
anchors=8,10, 12,20, 20,24, 40,36, 60,60
classes=2
num=5
[route]
layers=0
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=8,10, 12,20, 20,24, 40,36, 60,60
classes=2
num=5
"""


@pytest.mark.slow
def test_the_commands_of_the_guide_to_detection_run_one_after_another(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the extra rtx is not installed")
    page = ROOT / "docs" / "detection.md"
    (tmp_path / "road.yaml").write_text(_blocks(page, "yaml")[0])
    study = load_study(tmp_path / "road.yaml")
    (tmp_path / "yolov3-tiny.cfg").write_text(_TWO_SCALES)
    (tmp_path / "coco.names").write_text("car\ndog\n")
    torch.manual_seed(0)
    write_weights(tmp_path / "yolov3-tiny.weights", build(read_cfg(tmp_path / "yolov3-tiny.cfg")))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "classes.txt").write_text("\n".join(study.labels))
    for seed, (split, scenes) in enumerate({"train": 24, "val": 10, "test": 10}.items()):
        images = tmp_path / "data" / "images" / split
        _write_yolo_labels(tuple(render_boxed_scenes(images, study.labels, scenes, seed)), study.labels, images)
    assert _run_commands(page, tmp_path) >= 5
    assert len(list((tmp_path / "drawn").iterdir())) == 10
    assert "mAP@0.5 by group" in (tmp_path / "runs" / "road" / "report.html").read_text()


def _write_yolo_labels(scenes: tuple[AnnotatedImage, ...], labels: tuple[str, ...], images: Path) -> None:
    folder = images.parents[1] / "labels" / images.name
    folder.mkdir(parents=True)
    for scene in scenes:
        assert scene.size is not None
        width, height = scene.size
        lines = []
        for mark in scene.marks:
            left, top, right, bottom = mark.corners
            place = ((left + right) / 2 / width, (top + bottom) / 2 / height)
            sides = ((right - left) / width, (bottom - top) / height)
            lines.append(" ".join(map(str, (labels.index(mark.label), *place, *sides))))
        (folder / scene.path).with_suffix(".txt").write_text("\n".join(lines))
