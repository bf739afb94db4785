from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.artifacts.box_index import Box, BoxedImage
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.files import sha256_file
from edgetl.config import AugmentationSettings
from edgetl.data.box_views import LEAST_VISIBLE, BoxView, MosaicTile, ViewBoxes, box_renderer, tiles, view_boxes
from edgetl.data.images import Pixels
from edgetl.data.stream import stream
from edgetl.data.views import plain
from edgetl.errors import EdgetlError

COLOURS = {"red": (240, 20, 20), "green": (20, 240, 20), "blue": (20, 20, 240)}
CHANNEL = {label: channel for channel, label in enumerate(COLOURS)}

AUGMENTATIONS = st.builds(
    AugmentationSettings,
    flip=st.booleans(),
    scale=st.sampled_from([0.0, 0.3, 0.85]),
    color_jitter=st.sampled_from([0.0, 0.3, 0.6]),
    mosaic=st.booleans(),
)
PREPROCESSINGS = st.builds(
    Preprocessing,
    width=st.sampled_from([64, 96, 133]),
    height=st.sampled_from([64, 120]),
    fit=st.sampled_from(["letterbox", "stretch"]),
)


def letterbox(side: int = 96) -> Preprocessing:
    return Preprocessing(width=side, height=side, fit="letterbox")


def drawn(root: Path, name: str, size: tuple[int, int], boxes: dict[str, tuple[int, int, int, int]]) -> BoxedImage:
    """Rectangles in the colours of their labels on grey, stored without loss."""
    image = Image.new("RGB", size, (90, 90, 90))
    for label, box in boxes.items():
        image.paste(COLOURS[label], box)
    image.save(root / name)
    return BoxedImage(
        path=name,
        sha256=sha256_file(root / name),
        width=size[0],
        height=size[1],
        boxes=tuple(Box(label=label, x1=x1, y1=y1, x2=x2, y2=y2) for label, (x1, y1, x2, y2) in boxes.items()),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("boxes")


@pytest.fixture(scope="module")
def images(root: Path) -> tuple[BoxedImage, ...]:
    """Wide, high, square and small; one object, several, one over all of the image, none."""
    return (
        drawn(root, "wide.png", (300, 160), {"red": (20, 20, 120, 140), "green": (150, 30, 290, 80)}),
        drawn(root, "high.png", (120, 260), {"blue": (10, 10, 110, 90), "red": (30, 150, 100, 250)}),
        drawn(root, "square.png", (200, 200), {"green": (0, 0, 90, 90), "blue": (100, 110, 200, 200)}),
        drawn(root, "all.png", (100, 90), {"red": (0, 0, 100, 90)}),
        drawn(root, "none.png", (140, 90), {}),
    )


def rendered(image: BoxedImage, view: BoxView, root: Path) -> Pixels:
    return box_renderer(view, root)((root / image.path).read_bytes(), image)


def coloured(pixels: Pixels, label: str) -> npt.NDArray[np.bool_]:
    """Where a label's colour is: grey stays grey in any light, and the strongest channel the strongest."""
    values = pixels.astype(int)
    own = values[..., CHANNEL[label]]
    rest = np.delete(values, CHANNEL[label], axis=2).max(axis=2)
    return own > rest + 12


def covered(found: ViewBoxes, label: str, shape: tuple[int, ...], margin: float) -> npt.NDArray[np.bool_]:
    """The pixels that lie in boxes of a label, shrunk by a margin (or grown, where it is negative)."""
    mask = np.zeros(shape[:2], bool)
    for (x1, y1, x2, y2), name in zip(found.boxes.tolist(), found.labels, strict=True):
        if name == label:
            x1, y1, x2, y2 = x1 + margin, y1 + margin, x2 - margin, y2 - margin
            mask[max(0, int(np.ceil(y1))) : max(0, int(y2)), max(0, int(np.ceil(x1))) : max(0, int(x2))] = True
    return mask


@settings(max_examples=150)
@given(AUGMENTATIONS, PREPROCESSINGS, st.integers(0, 40), st.integers(0, 3), st.integers(0, 4))
def test_boxes_of_every_view_hold_the_pixels_of_their_objects_and_no_others(
    root: Path,
    images: tuple[BoxedImage, ...],
    augmentation: AugmentationSettings,
    preprocessing: Preprocessing,
    number: int,
    seed: int,
    which: int,
) -> None:
    view = BoxView(preprocessing, number, seed, augmentation, images)
    pixels, found = rendered(images[which], view, root), view_boxes(images[which], view)
    assert pixels.shape == (preprocessing.height, preprocessing.width, 3) and pixels.dtype == np.uint8
    assert found.boxes.dtype == np.float32 and len(found.boxes) == len(found.labels) == len(found.ignored)
    assert (found.boxes >= 0).all() and (found.boxes <= [preprocessing.width, preprocessing.height] * 2).all()
    for label in COLOURS:
        there = coloured(pixels, label)
        # Edges are blended over as many pixels as an enlargement spreads them.
        assert there[covered(found, label, pixels.shape, margin=2.5)].all()
        assert not there[~covered(found, label, pixels.shape, margin=-2.5) & within(tiles(images[which], view))].any()


def within(windows: Iterable[MosaicTile]) -> npt.NDArray[np.bool_]:
    """The pixels that lie well within the windows of a view: at their edges, what ends just outside is blended in."""
    windows = list(windows)
    width, height = (max(tile.window[side] for tile in windows) for side in (2, 3))
    mask = np.zeros((height, width), bool)
    for tile in windows:
        x1, y1, x2, y2 = tile.window
        mask[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = True
    return mask


def test_what_ends_just_outside_its_window_is_blended_at_the_edge(root: Path, images: tuple[BoxedImage, ...]) -> None:
    augmentation = AugmentationSettings(flip=True, scale=0.85, color_jitter=0.0, mosaic=True)
    view = BoxView(Preprocessing(width=64, height=64, fit="stretch"), 15, 1, augmentation, images)
    blue = coloured(rendered(images[2], view, root), "blue")
    outside = blue & ~covered(view_boxes(images[2], view), "blue", blue.shape, margin=-2.5)
    assert outside.any() and not (outside & within(tiles(images[2], view))).any()


def test_the_plain_view_is_the_one_that_whole_images_have(root: Path, images: tuple[BoxedImage, ...]) -> None:
    for image in images:
        view = BoxView(letterbox(), seed=7, augmentation=AugmentationSettings(mosaic=True), others=images)
        np.testing.assert_array_equal(
            rendered(image, view, root), plain((root / image.path).read_bytes(), view.preprocessing)
        )
    found = view_boxes(images[0], BoxView(letterbox(100)))
    # 300 x 160 becomes 100 x 53, under a bar of 23.
    np.testing.assert_allclose(found.boxes[0], [20 / 3, 23 + 20 * 53 / 160, 40, 23 + 140 * 53 / 160], rtol=1e-6)
    assert found.labels == ("red", "green") and not found.ignored.any()


def test_a_view_depends_on_seed_number_and_content_alone(root: Path, images: tuple[BoxedImage, ...]) -> None:
    def boxes(number: int, seed: int, image: BoxedImage = images[0]) -> bytes:
        return view_boxes(image, BoxView(letterbox(), number, seed)).boxes.tobytes()

    moved = images[0].model_copy(update={"path": "elsewhere.png"})
    assert boxes(1, 0, moved) == boxes(1, 0)
    assert len({boxes(number, seed) for number in range(5) for seed in range(4)}) == 17  # the plain view has no seed


def test_nothing_to_augment_leaves_the_plain_view(root: Path, images: tuple[BoxedImage, ...]) -> None:
    still = AugmentationSettings(flip=False, scale=0.0, color_jitter=0.0)
    for number in range(4):
        found = rendered(images[0], BoxView(letterbox(), number, 0, still), root)
        np.testing.assert_array_equal(found, rendered(images[0], BoxView(letterbox()), root))


def test_about_half_of_the_views_are_mirrored_and_about_half_are_mosaics(images: tuple[BoxedImage, ...]) -> None:
    augmentation = AugmentationSettings(mosaic=True)
    found = [tiles(images[0], BoxView(letterbox(), number, 0, augmentation, images)) for number in range(1, 201)]
    assert {len(view) for view in found} == {1, 4}
    assert 70 < sum(len(view) == 4 for view in found) < 130
    mirrored = Counter(tile.place.mirrored for view in found for tile in view)
    assert 0.4 < mirrored[True] / mirrored.total() < 0.6


def test_a_mosaic_shows_the_image_and_three_others(images: tuple[BoxedImage, ...]) -> None:
    augmentation = AugmentationSettings(mosaic=True)
    mosaics = [
        parts
        for number in range(1, 40)
        if len(parts := tiles(images[0], BoxView(letterbox(), number, 0, augmentation, images))) == 4
    ]
    assert all(len({tile.image.sha256 for tile in parts}) == 4 for parts in mosaics)
    assert all(images[0] in [tile.image for tile in parts] for parts in mosaics)
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in (tile.window for tile in mosaics[0]))
    assert area == 96 * 96
    alone = [tiles(images[0], BoxView(letterbox(), number, 0, augmentation, images[:1])) for number in range(1, 40)]
    assert all(tile.image is images[0] for parts in alone for tile in parts)


def test_images_of_a_mosaic_fill_their_windows_but_slivers_stay_small(images: tuple[BoxedImage, ...]) -> None:
    still = AugmentationSettings(scale=0.0, mosaic=True)
    sliver = images[0].model_copy(update={"sha256": "f" * 64, "width": 60_000, "height": 2, "boxes": ()})
    mosaics = [tiles(sliver, BoxView(letterbox(), number, 0, still, images)) for number in range(1, 40)]
    for tile in (tile for parts in mosaics if len(parts) == 4 for tile in parts):
        left, top, right, bottom = tile.window
        if tile.image is sliver:
            assert max(tile.place.size) <= 3 * 96
        else:
            (x, y), (width, height) = tile.place.corner, tile.place.size
            assert x <= left and y <= top and x + width >= right and y + height >= bottom


def test_an_object_of_which_little_is_left_is_ignored() -> None:
    image = BoxedImage(
        path="x.png",
        sha256="0" * 64,
        width=100,
        height=100,
        boxes=tuple(Box(label="red", x1=x, y1=40, x2=x + 10, y2=60) for x in range(0, 100, 2) if x + 10 <= 100),
    )
    zoomed = AugmentationSettings(scale=0.5, flip=False)
    states: Counter[str] = Counter()
    for number in range(1, 60):
        view = BoxView(letterbox(100), number, 0, zoomed)
        found = view_boxes(image, view)
        (tile,) = tiles(image, view)
        placed = tile.place.to_input([(box.x1, box.y1, box.x2, box.y2) for box in image.boxes])
        widths = np.clip(placed[:, 2], 0, 100) - np.clip(placed[:, 0], 0, 100)
        heights = np.clip(placed[:, 3], 0, 100) - np.clip(placed[:, 1], 0, 100)
        shares = widths * heights / (placed[:, 2:] - placed[:, :2]).prod(axis=1)
        assert found.ignored.tolist() == [bool(share < LEAST_VISIBLE) for share in shares if share > 0]
        states.update({"gone": int((shares == 0).sum()), "ignored": int(found.ignored.sum())})
    assert states["gone"] > 50 and states["ignored"] > 20


def test_crowds_and_difficult_objects_stay_ignored(root: Path) -> None:
    image = drawn(root, "crowd.png", (80, 80), {"red": (10, 10, 40, 40), "blue": (50, 50, 70, 70)})
    crowd = image.boxes[0].model_copy(update={"ignored": True})
    image = image.model_copy(update={"boxes": (crowd, *image.boxes[1:])})
    assert view_boxes(image, BoxView(letterbox())).ignored.tolist() == [True, False]


def test_an_image_without_boxes_has_a_table_without_rows(images: tuple[BoxedImage, ...]) -> None:
    found = view_boxes(images[4], BoxView(letterbox(), 1))
    assert found.boxes.shape == (0, 4) and found.labels == () and found.ignored.shape == (0,)


def test_light_changes_the_image_and_not_the_bars(root: Path, images: tuple[BoxedImage, ...]) -> None:
    light = AugmentationSettings(flip=False, scale=0.0, color_jitter=0.5)
    found = rendered(images[0], BoxView(letterbox(), 1, 0, light), root)
    plainly = rendered(images[0], BoxView(letterbox()), root)
    bars = (plainly == 127).all(axis=2)
    assert bars.any() and (found[bars] == 127).all()
    assert np.abs(found[~bars].astype(int) - plainly[~bars]).mean() > 5


def test_views_stream_like_any_images(root: Path, images: tuple[BoxedImage, ...]) -> None:
    view = BoxView(letterbox(), 3, 1, AugmentationSettings(mosaic=True), images)
    (batch,) = stream(images, root, box_renderer(view, root), np.copy)
    np.testing.assert_array_equal(batch.result, [rendered(image, view, root) for image in images])


def test_a_broken_partner_of_a_mosaic_is_named(root: Path, images: tuple[BoxedImage, ...]) -> None:
    (root / "cut.png").write_bytes((root / "high.png").read_bytes()[:-20])
    cut = images[1].model_copy(update={"path": "cut.png", "sha256": sha256_file(root / "cut.png")})
    others = (images[0], cut)
    numbers = range(1, 20)
    views = [BoxView(letterbox(), number, 0, AugmentationSettings(mosaic=True), others) for number in numbers]
    view = next(view for view in views if len(tiles(images[0], view)) == 4)
    with pytest.raises(EdgetlError, match=r"wide\.png \(a mosaic with cut\.png, which is broken: truncated"):
        list(stream(images[:1], root, box_renderer(view, root), len))
