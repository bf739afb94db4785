from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.views import augment


def picture(width: int = 96, height: int = 72) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def test_an_augmented_view_depends_on_its_seed_alone() -> None:
    preprocessing, image = Preprocessing.square(32), picture()
    views = [augment(image, preprocessing, f"{seed}", flip=True) for seed in range(20)]
    again = [augment(image.copy(), preprocessing, f"{seed}", flip=True) for seed in range(20)]
    np.testing.assert_array_equal(views, again)
    assert len({view.tobytes() for view in views}) == len(views)
    assert all(view.shape == (32, 32, 3) and view.dtype == np.uint8 for view in views)


def test_only_flip_mirrors_about_half_of_the_views() -> None:
    ramp = np.repeat(np.tile(np.arange(100, dtype=np.uint8) * 2, (100, 1))[..., None], 3, axis=2)
    image, preprocessing = Image.fromarray(ramp), Preprocessing.square(16)

    def mirrored(flip: bool) -> int:
        views = (augment(image, preprocessing, f"{seed}", flip) for seed in range(200))
        return sum(int(view[8, 0, 0]) > int(view[8, -1, 0]) for view in views)

    assert mirrored(flip=False) == 0
    assert 70 < mirrored(flip=True) < 130


@given(st.integers(1, 40), st.integers(1, 2000), st.text(max_size=5))
@settings(max_examples=60)
def test_images_of_any_shape_can_be_augmented(short: int, long: int, seed: str) -> None:
    for size in ((short, long), (long, short)):
        assert augment(Image.new("RGB", size), Preprocessing.square(16), seed, flip=True).shape == (16, 16, 3)
