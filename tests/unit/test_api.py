"""What a program that imports edgetl relies on."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image

import edgetl
from edgetl.graph.model import load_model
from tests.unit.stages.test_build_file import plain_model, saved

SECTIONS = {
    "name": "digits",
    "data": {"format": "digits"},
    "groups": {"straight": [1, 4, 7], "round": [0, 6]},
    "backbone": {"name": "edgetl/nano"},
}


@pytest.fixture
def model(tmp_path: Path) -> edgetl.Model:
    return edgetl.load(saved(plain_model(), tmp_path / "plain.onnx"), preprocessing="unit")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        Image.effect_noise((20, 24), 60 + number).convert("RGB").save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def test_importing_edgetl_imports_nothing_else() -> None:
    program = "import sys, edgetl; print({'click', 'numpy', 'onnx', 'pydantic', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in edgetl.__all__:
        assert getattr(edgetl, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = edgetl.quantise  # type: ignore[attr-defined]


def test_a_study_in_python_is_the_study_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "name: digits\ndata: {format: digits}\ngroups: {straight: [1, 4, 7], round: [0, 6]}\n"
        "backbone: {name: edgetl/nano}\n"
    )
    written = edgetl.Study.from_yaml(tmp_path / "study.yaml")
    assert edgetl.Study(**SECTIONS).settings == written.settings
    assert written.base_dir == tmp_path


def test_all_faults_of_a_study_in_python_are_told_at_once() -> None:
    with pytest.raises(edgetl.StudyError) as caught:
        edgetl.Study(**SECTIONS | {"seed": "one", "grups": {}})
    message = str(caught.value)
    assert "seed is 'one'" in message and "grups is not a known key (did you mean groups?)" in message
    assert "line" not in message


def test_an_unknown_stage_is_told_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(edgetl.EdgetlError, match=r"no stage 'reports' \(did you mean report\?\)"):
        edgetl.Study(**SECTIONS).run(tmp_path / "run", until="reports")
    assert not (tmp_path / "run").exists()


def test_a_study_says_nothing_unless_it_is_asked_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = edgetl.Study(**SECTIONS)
    run = study.run(tmp_path / "run", until="index")
    assert capfd.readouterr() == ("", "")
    heard: list[str] = []
    study.run(tmp_path / "run", until="index", progress=heard.append)
    assert heard == ["index: up to date"]
    with pytest.raises(edgetl.EdgetlError, match=r"results.json"):
        _ = run.verdict


def test_a_model_is_described(model: edgetl.Model) -> None:
    assert [one.name for one in model.inputs] == ["pixels"]
    assert model.cost().flops > 0
    assert model.prepared is None


def test_an_engine_computes_what_the_graph_says(model: edgetl.Model) -> None:
    images = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    (expected,) = ReferenceEvaluator(load_model(model.path)).run(None, {"pixels": images})
    engine = model.build()
    (found,) = engine(images).values()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(edgetl.EdgetlError, match="takes 1 inputs, found 2"):
        engine(images, images)


def test_int8_lies_in_a_temporary_folder_until_it_is_saved(model: edgetl.Model, photos: Path, tmp_path: Path) -> None:
    int8 = model.quantize(photos, target="onnxruntime")
    place = int8.path
    kept = int8.save(tmp_path / "kept.onnx")
    assert kept.prepared == int8.prepared and kept.prepared is not None
    del int8
    gc.collect()
    assert not place.exists()
    assert kept.build()(kept.read([photos / "0.png"]))
    with pytest.raises(edgetl.EdgetlError, match="go together"):
        model.quantize(photos, max_accuracy_drop=0.01)


def test_an_engine_is_saved_with_its_manifest(model: edgetl.Model, tmp_path: Path) -> None:
    engine = model.build().save(tmp_path / "engine.onnx")
    assert edgetl.load_engine(tmp_path / "engine.onnx").manifest == engine.manifest


def test_how_images_become_the_input_is_said_and_not_guessed(tmp_path: Path, photos: Path) -> None:
    path = saved(plain_model(), tmp_path / "silent.onnx")
    before = path.read_bytes()
    silent = edgetl.load(path)
    assert silent.preprocessing is None
    with pytest.raises(edgetl.EdgetlError, match="does not say how images become its input"):
        silent.read([photos / "0.png"])
    said = edgetl.load(path, preprocessing="imagenet")
    assert said.preprocessing is not None and said.preprocessing.mean == (0.485, 0.456, 0.406)
    assert path.read_bytes() == before
    with pytest.raises(edgetl.EdgetlError, match=r"'imagenets' is not known \(did you mean imagenet\?\)"):
        edgetl.load(path, preprocessing="imagenets")


@pytest.mark.slow
def test_a_ratio_and_its_inverse_have_inverse_intervals(model: edgetl.Model) -> None:
    measured = edgetl.profile({"engine": model.build(threads=1), "graph": model}, seconds=0.2, threads=1, energy=False)
    there, back = measured.ratio("engine", "graph"), measured.ratio("graph", "engine")
    assert there.ratio is not None and back.ratio == pytest.approx(1 / there.ratio)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    assert measured.latency("graph").p50 > 0
    assert list(measured.to_frame().index) == ["engine", "graph"]
    with pytest.raises(edgetl.EdgetlError, match=r"'grahp' was not measured \(did you mean graph\?\)"):
        measured.ratio("engine", "grahp")
    with pytest.raises(edgetl.EdgetlError, match="cannot be compared with itself"):
        measured.ratio("graph", "graph")


def test_models_that_share_layers_are_fused(model: edgetl.Model) -> None:
    fused = edgetl.fuse({"a": model, "b": model.path})
    images = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    (alone,) = model.build()(images).values()
    both = fused.build()(images)
    assert all(name.startswith(("a/", "b/")) for name in both)
    for output in both.values():
        np.testing.assert_array_equal(output, alone)
    assert fused.fusion.verified.wrong is None
    with pytest.raises(edgetl.EdgetlError, match="was given 1 models"):
        edgetl.fuse({"a": model})
