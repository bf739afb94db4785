from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.errors import EdgetlError
from edgetl.graph.model import save_model
from edgetl.measure.waterfall import STEPS
from edgetl.stages.predict_files import PredictRequest, predict
from edgetl.stages.waterfalls import waterfall_of_model
from tests.unit.stages.conftest import Trained


@pytest.fixture
def model(trained: Trained, tmp_path: Path) -> Path:
    save_model(trained.whole(), tmp_path / "whole.onnx")
    return tmp_path / "whole.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_every_step_of_predict_takes_time(model: Path, photos: Path) -> None:
    found = waterfall_of_model(model, photos, threads=1, seconds=0.05)
    assert [step.name for step in found.steps] == list(STEPS)
    assert all(step.ms > 0 for step in found.steps)
    assert found.images == 3 and found.samples % 3 == 0


def test_what_is_measured_says_what_predict_says(model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers on the measured way are those of the command."""
    from edgetl.stages import predictor

    answers = []
    said = predictor.Predictor.prediction

    def remember(self: predictor.Predictor, *arguments: object, **settings: object) -> object:
        answers.append(said(self, *arguments, **settings))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(predictor.Predictor, "prediction", remember)
    waterfall_of_model(model, photos, threads=1, seconds=0.0)
    measured = {one.path: one for one in answers}
    answers.clear()
    expected = {one.path: one for one in predict(PredictRequest(model, (photos,)))}
    assert measured == expected and len(expected) == 3


def test_files_that_are_no_images_are_left_out(model: Path, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (photos / "notes.txt").write_text("no image")
    assert waterfall_of_model(model, photos, threads=1, seconds=0.0).images == 3


@pytest.mark.parametrize(("content", "reason"), [(None, "is not a folder"), (b"", "holds no images that can be read")])
def test_where_there_are_no_images_that_is_one_line(
    content: bytes | None, reason: str, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "none"
    if content is not None:
        folder.mkdir()
        (folder / "empty.png").write_bytes(content)
    with pytest.raises(EdgetlError, match=reason):
        waterfall_of_model(model, folder, threads=1, seconds=0.0)
