"""Features of a study's images at any cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("onnxsim", reason="the extra train is not installed")

from edgetl.artifacts.bundle import IMAGES, TOP  # noqa: E402
from edgetl.artifacts.data_index import DataIndex, Sample  # noqa: E402
from edgetl.artifacts.files import sha256_file  # noqa: E402
from edgetl.artifacts.run_directory import RunDirectory  # noqa: E402
from edgetl.config import BackboneSettings, Study  # noqa: E402
from edgetl.data.images import decode, fit  # noqa: E402
from edgetl.data.stream import to_input  # noqa: E402
from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.graph.simplify import simplify  # noqa: E402
from edgetl.stages.classify.study_features import StudyFeatures, TrainValFeatures  # noqa: E402
from edgetl.stages.stage import Context, ProgressReporter  # noqa: E402
from edgetl.train.backbones import load_backbone  # noqa: E402
from edgetl.train.cuts import split  # noqa: E402
from edgetl.train.feature_cache import make_extractor  # noqa: E402
from edgetl.train.onnx_export import export_trunk  # noqa: E402

SIZE = 16
CUT, SHAPE = "features.3", (64, 4, 4)
NANO = load_backbone(BackboneSettings(name="edgetl/nano", image_size=SIZE), Path(), seed=0)


@pytest.fixture
def source(tmp_path: Path, listener: ProgressReporter) -> StudyFeatures:
    """Six images to train on and three to validate on, of two labels in turn."""
    root = tmp_path / "images"
    root.mkdir()
    samples = []
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path := root / f"{number}.png")
        samples.append(Sample(path=path.name, label=("0", "1")[number % 2], sha256=sha256_file(path)))
    index = DataIndex(generated=False, labels=("0", "1"), train=tuple(samples[:6]), val=tuple(samples[6:]), test=())
    study = Study(
        name="features",
        data={"format": "image-folder", "root": "images", "max_broken_fraction": 0.4},
        groups={"all": ("0", "1")},
        backbone={"name": "edgetl/nano", "image_size": SIZE},
        deployments=("combined",),
        training={"views": 2},
    )
    return StudyFeatures(Context(study, tmp_path, RunDirectory(tmp_path / "run"), listener), index, root, NANO)


def at_the_cut(source: StudyFeatures) -> TrainValFeatures:
    lower, _ = split(NANO, CUT)
    return source.at(CUT, SHAPE, make_extractor(lower, simplify(export_trunk(NANO, lower))))


def pixels(source: StudyFeatures, samples: tuple[Sample, ...]) -> Any:
    images = [decode((source.root / sample.path).read_bytes(), SIZE) for sample in samples]
    return to_input(np.stack([fit(image, NANO.preprocessing) for image in images]))


def broken(source: StudyFeatures, *numbers: int) -> StudyFeatures:
    """The same, with images that were cut short before they were indexed."""
    samples = [*source.index.train, *source.index.val]
    for number in numbers:
        path = source.root / samples[number].path
        path.write_bytes(path.read_bytes()[:60])
        samples[number] = samples[number].model_copy(update={"sha256": sha256_file(path)})
    index = source.index.model_copy(update={"train": tuple(samples[:6]), "val": tuple(samples[6:])})
    return replace(source, index=index)


def test_at_the_images_the_features_are_the_images(source: StudyFeatures) -> None:
    seen = source.at(IMAGES, (3, SIZE, SIZE), to_input)
    np.testing.assert_array_equal(seen.train.views[0], pixels(source, source.index.train))
    np.testing.assert_array_equal(seen.val.views[0], pixels(source, source.index.val))


def test_at_a_cut_the_features_are_the_maps_there(source: StudyFeatures) -> None:
    seen = at_the_cut(source)
    lower, _ = split(NANO, CUT)
    with torch.inference_mode():
        expected = lower(torch.from_numpy(pixels(source, source.index.train))).numpy()
    assert expected.shape == (6, *SHAPE)
    np.testing.assert_allclose(seen.train.views[0], expected, rtol=1e-4, atol=1e-4)


def test_training_images_have_every_view_and_validation_images_one(source: StudyFeatures) -> None:
    seen = source.at(IMAGES, (3, SIZE, SIZE), to_input)
    plain, augmented = seen.train.views
    assert plain.shape == augmented.shape and (plain != augmented).any()
    assert len(seen.val.views) == 1
    assert seen.train.labels == ("0", "1", "0", "1", "0", "1")


def test_every_cut_has_a_cache_of_its_own(source: StudyFeatures, listener: Any) -> None:
    first = at_the_cut(source)
    images = source.at(IMAGES, (3, SIZE, SIZE), to_input)
    again = at_the_cut(source)
    np.testing.assert_array_equal(first.train.views[1], again.train.views[1])
    assert images.train.views[0].shape == (6, 3, SIZE, SIZE)
    shown = [line.removeprefix("finetune: ") for line in listener.lines]
    maps, size = "64 x 4 x 4", f"3 x {SIZE} x {SIZE}"
    assert shown[:3] == [
        f"6 x {maps} features of train at {CUT} computed",
        f"6 x {maps} features of train (view 1) at {CUT} computed",
        f"3 x {maps} features of val at {CUT} computed",
    ]
    assert shown[3] == f"6 x {size} features of train at images computed"
    assert shown[6] == f"6 x {maps} features of train at {CUT} from the cache"


def test_at_the_top_lines_name_no_cut(source: StudyFeatures, listener: Any) -> None:
    seen = source.at(TOP, (160,), make_extractor(NANO.trunk, simplify(export_trunk(NANO))))
    assert seen.train.views[0].shape == (6, 160)
    assert listener.lines[0] == "finetune: 6 x 160 features of train computed"


def test_broken_images_are_left_out_with_their_labels_at_every_cut(source: StudyFeatures) -> None:
    mended = broken(source, 1, 7)
    for seen in (at_the_cut(mended), mended.at(IMAGES, (3, SIZE, SIZE), to_input)):
        assert [file.path for file in seen.broken] == ["1.png", "7.png"]
        assert seen.train.labels == ("0", "0", "1", "0", "1")
        assert seen.val.labels == ("0", "0")
        assert [len(view) for view in (*seen.train.views, *seen.val.views)] == [5, 5, 2]


def test_too_many_broken_images_are_refused(source: StudyFeatures) -> None:
    with pytest.raises(EdgetlError, match="4 of 9"):
        at_the_cut(broken(source, 1, 2, 3, 7))
