"""The maps of a split: from the disk or computed, they are those of the very pixels that the boxes belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.artifacts.files import sha256_file
from edgetl.config import AugmentationSettings, BackboneSettings
from edgetl.data.box_views import BoxView, box_renderer, view_boxes
from edgetl.errors import EdgetlError
from edgetl.graph.simplify import simplify
from edgetl.train.detect.detector import Detector, load_detector
from edgetl.train.detect.feature_maps import FeatureMapCut, FeatureMaps, map_source
from edgetl.train.detect.training_loop import FeatureMapBatch
from edgetl.train.feature_cache import make_extractor
from edgetl.train.onnx_export import export_network

Array = NDArray[np.float32]
Load = Callable[..., Detector]

IMAGES = 7
AUGMENTATION = AugmentationSettings(views=2, flip=True, scale=0.4, color_jitter=0.3)
MOSAIC = AugmentationSettings(views=3, mosaic=True)
WHOLE = 10**9


def drawn(root: Path, number: int) -> BoxedImage:
    random = np.random.default_rng(number)
    width, height = (int(side) for side in random.integers(50, 120, size=2))
    picture = Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8))
    box = Box(label="car", x1=10, y1=8, x2=float(width - 12), y2=float(height - 9))
    ImageDraw.Draw(picture).rectangle((box.x1, box.y1, box.x2, box.y2), fill=(250, 40 * number, 20))
    picture.save(root / f"{number}.png")
    sha256 = sha256_file(root / f"{number}.png")
    return BoxedImage(path=f"{number}.png", sha256=sha256, width=width, height=height, boxes=(box,))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def images(root: Path) -> list[BoxedImage]:
    return [drawn(root, number) for number in range(IMAGES)]


@pytest.fixture(scope="module")
def nano() -> Detector:
    return load_detector(BackboneSettings(name="edgetl/nano", image_size=(48, 32)), Path(), 0)


@pytest.fixture(params=["nano", "darknet"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """Of one map, and of two."""
    found = request.getfixturevalue(request.param)
    return found() if request.param == "darknet" else found  # type: ignore[no-any-return]


def cut_of(detector: Detector) -> FeatureMapCut:
    names = [f"map{number}" for number in range(len(detector.maps))]
    graph = simplify(export_network(detector.trunk(), detector.preprocessing.shape, names, "network"))
    return FeatureMapCut("top", detector.shapes, make_extractor(detector.trunk(), graph))


def views_of(detector: Detector, augmentation: AugmentationSettings, others: list[BoxedImage]) -> list[BoxView]:
    return [
        BoxView(detector.preprocessing, number, 3, augmentation, tuple(others) if augmentation.mosaic else ())
        for number in range(augmentation.views + 1)
    ]


@pytest.fixture
def source(detector: Detector, images: list[BoxedImage], root: Path, tmp_path: Path) -> Callable[..., FeatureMaps]:
    cut = cut_of(detector)

    def source(
        budget: int = WHOLE, augmentation: AugmentationSettings = AUGMENTATION, cache: str = "cache", **more: Any
    ) -> FeatureMaps:
        views = views_of(detector, augmentation, images)
        return map_source(detector, cut, images, root, views, tmp_path / cache, budget, 3, **more)

    return source


def bytes_of_an_image(detector: Detector, views: int = 3) -> int:
    return views * 4 * sum(int(np.prod(shape)) for shape in detector.shapes)


def direct(detector: Detector, image: BoxedImage, view: BoxView, root: Path) -> list[Array]:
    """The maps of one view by the trunk itself."""
    pixels = box_renderer(view, root)((root / image.path).read_bytes(), image)
    with torch.inference_mode():
        maps = detector.trunk()(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None] / 255)
    return [one[0].numpy() for one in maps]


def belongs(detector: Detector, found: FeatureMaps, batch: FeatureMapBatch, root: Path) -> set[int]:
    """The views in a batch, once it is known that the maps of every image are those of a view, and its boxes too."""
    numbers = set()
    for place, row in enumerate(batch.rows):
        image, boxes = found.images[row], batch.drawn[place]
        fitting = [
            number
            for number, view in enumerate(found.views)
            if np.array_equal(view_boxes(image, view).boxes, boxes.boxes)
            and all(
                np.allclose(ours[place], theirs, rtol=1e-3, atol=1e-4)
                for ours, theirs in zip(batch.maps, direct(detector, image, view, root), strict=True)
            )
        ]
        assert fitting, f"no view of {image.path} has these maps and these boxes"
        numbers.add(fitting[0])
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 3, IMAGES])
def test_maps_and_boxes_are_those_of_one_view_of_the_image(
    detector: Detector, source: Callable[..., FeatureMaps], root: Path, kept: int
) -> None:
    found = source(budget=kept * bytes_of_an_image(detector))
    seen: set[int] = set()
    for batch in found.epoch(np.random.default_rng(0)):
        assert [tuple(one.shape) for one in batch.maps] == [(len(batch.rows), *shape) for shape in detector.shapes]
        seen |= belongs(detector, found, batch, root)
    assert seen == {0, 1, 2}
    rows = [row for batch in found.plain() for row in batch.rows]
    assert rows == list(range(IMAGES))
    assert all(belongs(detector, found, batch, root) == {0} for batch in found.plain())


def test_every_budget_gives_the_same_batches(detector: Detector, source: Callable[..., FeatureMaps]) -> None:
    each = bytes_of_an_image(detector)
    whole = source()
    assert whole.kept_bytes == IMAGES * each
    for budget in (0, each - 1, each, 4 * each + 5):
        some = source(budget=budget, cache=f"cache {budget}")
        assert some.kept_bytes == budget // each * each <= budget
        for one, other in zip(some.epoch(np.random.default_rng(1)), whole.epoch(np.random.default_rng(1)), strict=True):
            assert one.rows.tolist() == other.rows.tolist()
            for ours, theirs in zip(one.maps, other.maps, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
            for ours, theirs in zip(one.drawn, other.drawn, strict=True):
                np.testing.assert_array_equal(ours.boxes, theirs.boxes)


def test_every_image_comes_once_in_an_epoch_and_in_another_order_in_the_next(
    nano: Detector, images: list[BoxedImage], root: Path, tmp_path: Path
) -> None:
    found = map_source(nano, cut_of(nano), images, root, views_of(nano, AUGMENTATION, []), tmp_path / "cache", WHOLE, 3)
    random = np.random.default_rng(0)
    one, two = ([row for batch in found.epoch(random) for row in batch.rows] for _ in range(2))
    assert sorted(one) == sorted(two) == list(range(IMAGES))
    assert one != two
    assert len(found) == IMAGES


def spoil(root: Path, images: list[BoxedImage], number: int) -> None:
    """Cut a file short, as a full disk does; it was so when it was indexed."""
    path = root / images[number].path
    path.write_bytes(path.read_bytes()[:60])
    images[number] = images[number].model_copy(update={"sha256": sha256_file(path)})


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1, 3, IMAGES - 1, IMAGES])
@pytest.mark.parametrize("broken", [0, IMAGES - 1])
@pytest.mark.parametrize("detector", ["nano"], indirect=True)
def test_a_broken_image_is_left_out_and_told_of_wherever_it_stands(
    detector: Detector, images: list[BoxedImage], source: Callable[..., FeatureMaps], root: Path, kept: int, broken: int
) -> None:
    spoil(root, images, broken)
    found = source(budget=kept * bytes_of_an_image(detector))
    assert [file.path for file in found.broken] == [images[broken].path]
    assert found.usable.tolist() == [number for number in range(IMAGES) if number != broken]
    assert len(found) == IMAGES - 1
    for batch in found.epoch(np.random.default_rng(0)):
        belongs(detector, found, batch, root)
    assert [row for batch in found.plain() for row in batch.rows] == found.usable.tolist()


@pytest.mark.parametrize("kept", [0, 3, IMAGES])
@pytest.mark.parametrize("detector", ["nano"], indirect=True)
def test_an_image_that_is_broken_spoils_no_mosaic(
    detector: Detector, images: list[BoxedImage], source: Callable[..., FeatureMaps], root: Path, kept: int
) -> None:
    spoil(root, images, 2)
    found = source(budget=kept * bytes_of_an_image(detector, views=4), augmentation=MOSAIC)
    assert [file.path for file in found.broken] == [images[2].path]
    mosaics = 0
    for _ in range(2):
        for batch in found.epoch(np.random.default_rng(0)):
            belongs(detector, found, batch, root)
            mosaics += sum(len(one.boxes) > 1 for one in batch.drawn)
    assert mosaics > 0


@pytest.mark.parametrize("detector", ["nano"], indirect=True)
def test_one_more_view_costs_only_itself(source: Callable[..., FeatureMaps], tmp_path: Path) -> None:
    def files() -> set[str]:
        return {path.name for path in (tmp_path / "cache").glob("*.npy")}

    source()
    before = files()
    source(augmentation=AUGMENTATION.model_copy(update={"views": 3}))
    assert before < files()
    assert len(files() - before) == 1
    source(augmentation=AUGMENTATION.model_copy(update={"scale": 0.1}))
    assert len(files() - before) == 3, "other views are computed anew, the plain one is not"


@pytest.mark.parametrize("detector", ["nano"], indirect=True)
def test_progress_is_told_image_by_image_in_every_view(source: Callable[..., FeatureMaps]) -> None:
    told: list[int] = []
    source(watch=told.append)
    assert sum(told) == 3 * IMAGES


@pytest.mark.parametrize("detector", ["nano"], indirect=True)
def test_an_image_that_changes_while_heads_are_trained_is_an_error(
    images: list[BoxedImage], source: Callable[..., FeatureMaps], root: Path
) -> None:
    found = source(budget=0)
    (root / images[4].path).write_bytes((root / images[3].path).read_bytes())
    with pytest.raises(EdgetlError, match=r"4.png has changed since the data was indexed"):
        list(found.epoch(np.random.default_rng(0)))
